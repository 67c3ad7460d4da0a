"""The input pyramid: the image at half, a quarter, ... of its size, for later stages to see."""

from typing import Literal, get_args

import torch.nn.functional as F
from torch import Tensor, nn

from backbones.layers.choice import require_choice
from backbones.layers.pooling import local_avg_pool2d
from backbones.layers.reorg import reorg3d

PyramidKind = Literal["avgpool", "reorg3d"]


def input_pyramid(image: Tensor, levels: int, kind: PyramidKind = "avgpool") -> list[Tensor]:
    """Halve the image again and again, rounding odd sizes up as strided convolutions do.

    Args:
        image: the network's input.
        levels: how often to halve.
        kind: ``avgpool`` averages 2x2 cells (at an odd edge, those there are) and keeps the channels; ``reorg3d``
            keeps every cell and has four times the channels at each level (an odd edge is filled with zeros).

    Shape:
        (N, C, H, W) -> for k = 1 ... levels: (N, C or C * 4^k, ceil(H / 2^k), ceil(W / 2^k))
    """
    require_choice("pyramid", kind, get_args(PyramidKind))
    halve = {"avgpool": _averaged, "reorg3d": _rearranged}[kind]
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


def _averaged(x: Tensor) -> Tensor:
    return local_avg_pool2d(x, 2)


def _rearranged(x: Tensor) -> Tensor:
    bottom, right = x.shape[2] % 2, x.shape[3] % 2
    return reorg3d(F.pad(x, (0, right, 0, bottom)) if bottom or right else x, 2)
