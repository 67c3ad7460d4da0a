"""RFB (arXiv 1711.07767): branches with receptive fields of several sizes beside each other."""

from typing import Any

import torch
from torch import Tensor, nn

from backbones.layers.activation import ActivationName
from backbones.layers.conv import ConvNormAct


class Rfb(nn.Module):
    """Receptive field block: four branches of a quarter of the channels, concatenated.

    The branches are 1x1; 1x1, 3x3; 1x1, 3x3, dilated 3x3; 1x1, 5x5, dilated 3x3. With the dilations 3 and 5 of the
    paper they see 1, 3, 9 and 15 cells. There is no shortcut and no convolution behind them.

    Args:
        channels: channels of the map and of the result, a multiple of 4.
        batch_norm: batch normalization in every convolution, RFBN in darknet issue #4662; without it (RFB there) each
            has a bias.
        dilations: dilations of the last convolutions of the last two branches.
        act: activation of the convolutions.

    Shape:
        (N, channels, H, W) -> the same

    Raises:
        ValueError: ``channels`` is not a multiple of 4.
    """

    def __init__(
        self,
        channels: int,
        *,
        batch_norm: bool = True,
        dilations: tuple[int, int] = (3, 5),
        act: ActivationName = "mish",
    ) -> None:
        super().__init__()
        if channels < 4 or channels % 4:
            raise ValueError(f"channels={channels} is not a multiple of 4, the number of branches of an RFB")

        def unit(width: int, kernel: int, dilation: int) -> nn.Module:
            conv = ConvNormAct(width, channels // 4, kernel=kernel, dilation=dilation, act=act)
            return conv if batch_norm else _without_norm(conv)

        def branch(*convs: tuple[int, int]) -> nn.Sequential:
            widths = [channels, *[channels // 4] * len(convs)]
            pairs = zip(widths, convs, strict=False)
            return nn.Sequential(*(unit(width, *conv) for width, conv in pairs))

        near, far = ((3, dilation) for dilation in dilations)
        one, three, five = ((kernel, 1) for kernel in (1, 3, 5))
        rows = [(one,), (one, three), (one, three, near), (one, five, far)]
        self.branches = nn.ModuleList(branch(*row) for row in rows)

    def forward(self, x: Tensor) -> Tensor:
        """Run all branches and concatenate them."""
        return torch.cat([branch(x) for branch in self.branches], 1)


def _without_norm(unit: Any) -> nn.Module:
    """Put a bias in place of the batch normalization: the form of a folded convolution."""
    unit.conv.bias = nn.Parameter(torch.zeros(unit.conv.out_channels))
    unit.bn = nn.Identity()
    return unit
