"""ASFF (arXiv 1911.09516): each pixel of each level chooses its shares of all levels."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from backbones.layers.activation import ActivationName
from backbones.layers.conv import ConvNormAct, darknet_uniform_
from backbones.layers.levels import create_lateral, enlarge, require_levels
from backbones.layers.pooling import darknet_max_pool2d


def adaptive_sum(inputs: Sequence[Tensor], logits: Tensor) -> Tensor:
    """Add feature maps with a share for each input and pixel: the softmax of ``logits`` over the inputs.

    The softmax is computed in float32 at least, and the sum in the type of the maps.

    Shape:
        inputs (N, C, H, W), logits (N, inputs, H, W) -> (N, C, H, W)
    """
    precise = torch.promote_types(logits.dtype, torch.float32)
    shares = torch.softmax(logits, 1, dtype=precise).to(inputs[0].dtype).split(1, 1)
    first, *others = (x * share for x, share in zip(inputs, shares, strict=True))
    return sum(others, start=first)


class Asff(nn.Module):
    """Adaptively spatial feature fusion of P3 to P5 of a detector, or of any other levels.

    For each level, all levels are brought to its size. Smaller maps are enlarged by repeating cells. A larger map
    passes a 3x3 convolution of stride 2, and before it a 3x3 max pool of stride 2 for each further halving. A 1x1
    convolution turns all of them into one logit for each level and pixel. The sum with these shares passes a 3x3
    convolution. Darknet issue #4662: for ASFF, softmax works much better than relu or logistic.

    Args:
        in_channels: channels of each level, large maps first; at least two levels. A level of another width than
            ``width`` first passes a linear 1x1 convolution.
        width: channels of every result.
        compressed: channels of each level that the logits are computed from; 16 in the authors' code.
        act: activation of the convolutions.

    Shape:
        for each level j: (N, in_channels[j], H_j, W_j) -> (N, width, H_j, W_j), H_j+1 = ceil(H_j / 2)

    Raises:
        ValueError: there are fewer than two levels, or a call has another number of maps.
    """

    def __init__(
        self, in_channels: Sequence[int], width: int, *, compressed: int = 16, act: ActivationName = "mish"
    ) -> None:
        super().__init__()
        if len(in_channels) < 2:
            raise ValueError(f"in_channels={tuple(in_channels)}: an ASFF mixes at least two levels")
        levels = len(in_channels)
        self.laterals = nn.ModuleList(create_lateral(channels, width) for channels in in_channels)
        self.fusions = nn.ModuleList(_Fusion(level, levels, width, compressed, act) for level in range(levels))

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Mix the levels. Inputs and results have large maps first."""
        require_levels("ASFF", len(self.laterals), features)
        inputs = [lateral(x) for lateral, x in zip(self.laterals, features, strict=True)]
        return [fusion(inputs) for fusion in self.fusions]


class _Fusion(nn.Module):
    """Weighted sum of all levels at the size of level ``level``, then a convolution."""

    def __init__(self, level: int, levels: int, width: int, compressed: int, act: ActivationName) -> None:
        super().__init__()
        self.level = level
        self.shrink = nn.ModuleList(ConvNormAct(width, width, kernel=3, stride=2, act=act) for _ in range(level))
        self.compress = nn.ModuleList(ConvNormAct(width, compressed, kernel=1, act=act) for _ in range(levels))
        self.weigh = nn.Conv2d(levels * compressed, levels, 1)
        self.expand = ConvNormAct(width, width, kernel=3, act=act)
        darknet_uniform_(self.weigh.weight)
        nn.init.zeros_(self.weigh.bias)  # pyright: ignore[reportArgumentType]

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        resized = self._resize(features)
        compressed = [compress(x) for compress, x in zip(self.compress, resized, strict=True)]
        return self.expand(adaptive_sum(resized, self.weigh(torch.cat(compressed, 1))))

    def _resize(self, features: Sequence[Tensor]) -> list[Tensor]:
        same = features[self.level]
        shrunk = [self._shrink(index, x) for index, x in enumerate(features[: self.level])]
        return [*shrunk, same, *(enlarge(x, same) for x in features[self.level + 1 :])]

    def _shrink(self, index: int, x: Tensor) -> Tensor:
        for _ in range(self.level - index - 1):
            x = darknet_max_pool2d(x, 3, 2)
        return self.shrink[index](x)
