"""PANet (arXiv 1803.01534) in YOLOv4's form: maps of several sizes, concatenated top-down and bottom-up."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from backbones.layers.activation import ActivationName
from backbones.layers.conv import ConvNormAct
from backbones.layers.levels import alternating_convs, create_lateral, enlarge, require_levels


class PaNet(nn.Module):
    """Path aggregation for P3 to P5 of a detector or any other levels, as in csresnext50-panet-spp and YOLOv4.

    Top-down, each level is concatenated with the enlarged result of the next smaller level. Bottom-up, each result is
    concatenated behind the shrunk result of the next larger level. Five convolutions (1x1, 3x3, 1x1, 3x3, 1x1) follow
    each concatenation. Maps are enlarged by repeating cells and shrunk by a 3x3 convolution of stride 2, to exactly the
    size of the next level, so any size of image is accepted.

    Args:
        in_channels: channels of each level, large maps first; at least two levels.
        width: channels of every result, or one number for each level; 128, 256, 512 in the cfgs. The smallest map is
            taken as it is if it has its width, as after `Spp`.
        act: activation of the convolutions; ``leaky`` in the cfgs.

    Shape:
        for each level j: (N, in_channels[j], H_j, W_j) -> (N, width[j], H_j, W_j), H_j+1 = ceil(H_j / 2)

    Raises:
        ValueError: there are fewer than two levels, ``width`` has another number of levels, or a call has.
    """

    def __init__(self, in_channels: Sequence[int], width: int | Sequence[int], *, act: ActivationName = "mish") -> None:
        super().__init__()
        if len(in_channels) < 2:
            raise ValueError(f"in_channels={tuple(in_channels)}: a PANet mixes at least two levels")
        widths = [width] * len(in_channels) if isinstance(width, int) else list(width)
        if len(widths) != len(in_channels):
            raise ValueError(f"width={tuple(widths)} must have one number for each of {len(in_channels)} levels")
        steps = list(zip(in_channels, widths, widths[1:], strict=False))
        self.smallest = create_lateral(in_channels[-1], widths[-1], act=act)
        self.top_down = nn.ModuleList(
            _TopDown(channels, width, smaller, act) for channels, width, smaller in reversed(steps)
        )
        self.bottom_up = nn.ModuleList(_BottomUp(width, smaller, act) for _, width, smaller in steps)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Mix the levels. Inputs and results have large maps first."""
        require_levels("PANet", len(self.top_down) + 1, features)
        top_down = [self.smallest(features[-1])]
        for node, x in zip(self.top_down, reversed(features[:-1]), strict=True):
            top_down.insert(0, node(x, top_down[0]))
        results = [top_down[0]]
        for node, x in zip(self.bottom_up, top_down[1:], strict=True):
            results.append(node(results[-1], x))
        return results


class _TopDown(nn.Module):
    """Concatenation of a level and the enlarged result of the next smaller one, then five convolutions."""

    def __init__(self, channels: int, width: int, smaller: int, act: ActivationName) -> None:
        super().__init__()
        self.reduce = ConvNormAct(smaller, width, kernel=1, act=act)
        self.lateral = ConvNormAct(channels, width, kernel=1, act=act)
        self.convs = alternating_convs(2 * width, width, 5, act=act)

    def forward(self, x: Tensor, smaller: Tensor) -> Tensor:
        enlarged = enlarge(self.reduce(smaller), x)
        return self.convs(torch.cat([self.lateral(x), enlarged], 1))


class _BottomUp(nn.Module):
    """Concatenation of the shrunk result of the next larger level and a level, then five convolutions."""

    def __init__(self, larger: int, width: int, act: ActivationName) -> None:
        super().__init__()
        self.shrink = ConvNormAct(larger, width, kernel=3, stride=2, act=act)
        self.convs = alternating_convs(2 * width, width, 5, act=act)

    def forward(self, larger: Tensor, x: Tensor) -> Tensor:
        return self.convs(torch.cat([self.shrink(larger), x], 1))
