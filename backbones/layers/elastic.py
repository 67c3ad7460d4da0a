"""Elastic (arXiv 1812.05262): a block that works at full and at half resolution side by side."""

from typing import Literal, get_args

import torch
import torch.fx
import torch.nn.functional as F
from torch import Tensor, nn

from backbones.errors import require_choice
from backbones.layers.pooling import HalvingMaxPool2d
from backbones.layers.reorg import PaddedReorg3d, inverse_reorg3d

ElasticKind = Literal["pool", "reorg3d"]


@torch.fx.wrap  # the cut depends on the size, which a trace does not have
def double_size(x: Tensor, like: Tensor, kind: ElasticKind) -> Tensor:
    """Double height and width, and cut the last row or column where ``like`` has an odd size.

    Args:
        x: map of half the size.
        like: map of the full size.
        kind: ``pool`` repeats cells and keeps the channels: darknet's ``[upsample]``. ``reorg3d`` moves channels into
            cells, see `inverse_reorg3d`.

    Shape:
        x (N, C, ceil(H / 2), ceil(W / 2)), like (N, any, H, W) -> (N, C or C / 4, H, W)
    """
    doubled = inverse_reorg3d(x, 2) if kind == "reorg3d" else F.interpolate(x, scale_factor=2.0, mode="nearest")
    return doubled[:, :, : like.shape[2], : like.shape[3]]


class DoubleSize(nn.Module):
    """`double_size` as a module.

    Shape:
        (N, C, ceil(H / 2), ceil(W / 2)), (N, any, H, W) -> (N, C or C / 4, H, W)
    """

    def __init__(self, kind: ElasticKind) -> None:
        super().__init__()
        require_choice("elastic", kind, get_args(ElasticKind))
        self.kind: ElasticKind = kind

    def forward(self, x: Tensor, like: Tensor) -> Tensor:
        """Double and cut."""
        return double_size(x, like, self.kind)

    def extra_repr(self) -> str:
        """Show the kind in ``print(model)``."""
        return f"kind={self.kind}"


class ChannelHalf(nn.Module):
    """First or second half of the channels: darknet's ``[route]`` with ``groups=2``.

    Shape:
        (N, C, H, W) -> (N, C / 2, H, W)
    """

    def __init__(self, index: int) -> None:
        super().__init__()
        self.index = index

    def forward(self, x: Tensor) -> Tensor:
        """Return half ``index``, 0 or 1."""
        return x.chunk(2, 1)[self.index]

    def extra_repr(self) -> str:
        """Show the number of the half in ``print(model)``."""
        return f"index={self.index}"


class Elastic(nn.Module):
    """Two paths side by side: the first half of the channels at full size, the second half at half the size.

    Args:
        fine: layers of the first half, (N, C / 2, H, W) -> (N, A, H, W).
        coarse: layers of the second half. With ``pool``, a 2x2 max pool before them and repeated cells behind them:
            (N, C / 2, h, w) -> (N, B, h, w). With ``reorg3d``, space to depth before them and its inverse behind them:
            (N, 2 * C, h, w) -> (N, 4 * B, h, w). h and w are H / 2 and W / 2, rounded up.
        kind: change of the size.

    Shape:
        (N, C, H, W) -> (N, A + B, H, W)
    """

    def __init__(self, fine: nn.Module, coarse: nn.Module, kind: ElasticKind) -> None:
        super().__init__()
        self.first, self.second = ChannelHalf(0), ChannelHalf(1)
        self.fine = fine
        self.shrink = PaddedReorg3d(2) if kind == "reorg3d" else HalvingMaxPool2d()
        self.coarse = coarse
        self.enlarge = DoubleSize(kind)

    def forward(self, x: Tensor) -> Tensor:
        """Run both paths and concatenate them."""
        fine = self.fine(self.first(x))
        coarse = self.coarse(self.shrink(self.second(x)))
        return torch.cat([fine, self.enlarge(coarse, x)], 1)
