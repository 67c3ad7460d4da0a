"""Input pyramid: the image at a half, a quarter, ... of its size, as an input of later stages."""

from typing import Literal, get_args

import torch.fx
from torch import Tensor, nn

from backbones.errors import require_choice
from backbones.layers.pooling import local_avg_pool2d
from backbones.layers.reorg import padded_reorg3d

PyramidKind = Literal["avgpool", "reorg3d"]


@torch.fx.wrap
def input_pyramid(image: Tensor, levels: int, kind: PyramidKind = "avgpool") -> list[Tensor]:
    """Halve the image repeatedly. Odd sizes are rounded up, as strided convolutions do.

    It is one node of a graph that `torch.fx` traces, because the windows depend on the size.

    Args:
        image: the network's input.
        levels: number of halvings.
        kind: ``avgpool`` averages 2x2 cells, or the cells that an odd edge has, and keeps the channels. ``reorg3d``
            keeps every cell and has four times the channels at each level; an odd edge is filled with zeros.

    Shape:
        (N, C, H, W) -> for k = 1 ... levels: (N, C or C * 4^k, ceil(H / 2^k), ceil(W / 2^k))
    """
    require_choice("pyramid", kind, get_args(PyramidKind))
    halve = {"avgpool": lambda x: local_avg_pool2d(x, 2), "reorg3d": lambda x: padded_reorg3d(x, 2)}[kind]
    maps = [image]
    for _ in range(levels):
        maps.append(halve(maps[-1]))
    return maps[1:]


def pyramid_channels(channels: int, level: int, kind: PyramidKind) -> int:
    """Return the channels of level ``level``, counted from 1, for an image of ``channels``."""
    return channels * 4**level if kind == "reorg3d" else channels


class InputPyramid(nn.Module):
    """`input_pyramid` as a module.

    Shape:
        (N, C, H, W) -> for k = 1 ... levels: (N, C or C * 4^k, ceil(H / 2^k), ceil(W / 2^k))
    """

    def __init__(self, levels: int, kind: PyramidKind = "avgpool") -> None:
        super().__init__()
        require_choice("pyramid", kind, get_args(PyramidKind))
        self.levels = levels
        self.kind: PyramidKind = kind

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return the levels, largest first, without the image itself."""
        return input_pyramid(image, self.levels, self.kind)

    def extra_repr(self) -> str:
        """Show the options in ``print(model)``."""
        return f"levels={self.levels}, kind={self.kind}"
