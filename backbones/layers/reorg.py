"""Space to depth and back, with darknet's orders of channels."""

import torch
import torch.fx
import torch.nn.functional as F
from torch import Tensor, nn


@torch.fx.wrap  # the checks need a size, which a trace does not have
def reorg3d(x: Tensor, stride: int) -> Tensor:
    """Move each ``stride`` x ``stride`` block of cells into channels: darknet's ``[reorg3d]``.

    Output channel (dy * stride + dx) * C + c holds the cells (y * stride + dy, x * stride + dx) of channel c. This is
    the order of TensorFlow; torch's pixel_unshuffle has output channel (c * stride + dy) * stride + dx.

    Shape:
        (N, C, H, W) -> (N, C * stride^2, H / stride, W / stride)

    Raises:
        ValueError: ``stride`` does not divide H and W.
    """
    _, _, height, width = x.shape
    _require_divisible("height", height, stride)
    _require_divisible("width", width, stride)
    blocks = x.unflatten(3, (-1, stride)).unflatten(2, (-1, stride))
    if not _is_channels_last(x):
        return blocks.permute(0, 3, 5, 1, 2, 4).flatten(1, 3)
    return blocks.permute(0, 2, 4, 3, 5, 1).flatten(3).permute(0, 3, 1, 2)


@torch.fx.wrap
def padded_reorg3d(x: Tensor, stride: int) -> Tensor:
    """Compute `reorg3d` of a map of any size: rows and columns of zeros complete the last blocks.

    Shape:
        (N, C, H, W) -> (N, C * stride^2, ceil(H / stride), ceil(W / stride))
    """
    bottom, right = -x.shape[2] % stride, -x.shape[3] % stride
    return reorg3d(F.pad(x, (0, right, 0, bottom)) if bottom or right else x, stride)


def inverse_reorg3d(x: Tensor, stride: int) -> Tensor:
    """Compute the inverse of `reorg3d`. In a cfg this is ``[reorg] reverse=1``, not ``[reorg3d] reverse=1``.

    Shape:
        (N, C, H, W) -> (N, C / stride^2, H * stride, W * stride)

    Raises:
        ValueError: ``stride``^2 does not divide C.
    """
    _require_divisible("channels", x.shape[1], stride * stride)
    blocks = x.unflatten(1, (stride, stride, -1))
    if not _is_channels_last(x):
        return blocks.permute(0, 3, 4, 1, 5, 2).flatten(4, 5).flatten(2, 3)
    return blocks.permute(0, 4, 1, 5, 2, 3).flatten(3, 4).flatten(1, 2).permute(0, 3, 1, 2)


def reorg(x: Tensor, stride: int) -> Tensor:
    """Compute darknet's old ``[reorg]``: `reorg3d` of the input, read in a wrong shape.

    The memory of the input is read as (C / stride^2, H * stride, W * stride), which mixes cells of different places.
    Networks that were trained with it need it.

    Shape:
        (N, C, H, W) -> (N, C * stride^2, H / stride, W / stride)

    Raises:
        ValueError: ``stride`` does not divide H and W, or its square does not divide C.
    """
    count, channels, height, width = x.shape
    _require_divisible("height", height, stride)
    _require_divisible("width", width, stride)
    _require_divisible("channels", channels, stride * stride)
    misread = x.reshape(count, channels // stride**2, height * stride, width * stride)
    return reorg3d(misread, stride).reshape(count, channels * stride**2, height // stride, width // stride)


def reversed_reorg3d(x: Tensor, stride: int) -> Tensor:
    """Compute darknet's ``[reorg3d] reverse=1``: `inverse_reorg3d` of the input, read in a wrong shape.

    The result has the shape of the inverse, but cells of different places are mixed, because darknet starts from the
    size of the output. `inverse_reorg3d` is the true inverse.

    Shape:
        (N, C, H, W) -> (N, C / stride^2, H * stride, W * stride)

    Raises:
        ValueError: ``stride``^4 does not divide C (darknet divides by zero where C is smaller).
    """
    count, channels, height, width = x.shape
    _require_divisible("channels", channels, stride**4)
    shape = (count, channels // stride**2, height * stride, width * stride)
    return inverse_reorg3d(x.reshape(shape), stride).reshape(shape)


class Reorg3d(nn.Module):
    """`reorg3d` as a module.

    Shape:
        (N, C, H, W) -> (N, C * stride^2, H / stride, W / stride)
    """

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """Move blocks of cells into channels."""
        return reorg3d(x, self.stride)

    def extra_repr(self) -> str:
        """Show the stride in ``print(model)``."""
        return f"stride={self.stride}"


class PaddedReorg3d(Reorg3d):
    """`padded_reorg3d` as a module.

    Shape:
        (N, C, H, W) -> (N, C * stride^2, ceil(H / stride), ceil(W / stride))
    """

    def forward(self, x: Tensor) -> Tensor:
        """Move blocks of cells into channels, the cells outside as zeros."""
        return padded_reorg3d(x, self.stride)


class DilatedReorg3d(nn.Module):
    """Space to depth that keeps the size: each cell, and those ``dilation`` to the right, below, and both.

    Cells outside are zeros. On every ``dilation``-th cell of the input, `PaddedReorg3d` with stride 2 computes every
    second one of these cells.

    Shape:
        (N, C, H, W) -> (N, 4 * C, H, W)
    """

    def __init__(self, dilation: int) -> None:
        super().__init__()
        self.dilation = dilation

    def forward(self, x: Tensor) -> Tensor:
        """Concatenate the map and its three shifted copies."""
        below = F.pad(x, (0, 0, 0, self.dilation))[:, :, self.dilation :]
        return torch.cat([x, self._shift_left(x), below, self._shift_left(below)], 1)

    def extra_repr(self) -> str:
        """Show the dilation in ``print(model)``."""
        return f"dilation={self.dilation}"

    def _shift_left(self, x: Tensor) -> Tensor:
        return F.pad(x, (0, self.dilation))[..., self.dilation :]


def _is_channels_last(x: Tensor) -> bool:
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()


def _require_divisible(what: str, size: int, by: int) -> None:
    if by < 1 or size % by:
        raise ValueError(f"reorg: {what} {size} is not divisible by {by}")
