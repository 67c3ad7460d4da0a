"""Pooling with darknet's windows: the padding is divided between both sides, and cells outside do not count."""

import torch
import torch.fx
import torch.nn.functional as F
from torch import Tensor, nn

from backbones.layers.norm_act import is_recomputable
from backbones.layers.recomputed.max_pool import halve


@torch.fx.wrap  # the windows depend on the size, which a trace does not have
def darknet_max_pool2d(x: Tensor, size: int, stride: int | None = None, padding: int | None = None) -> Tensor:
    """Take the largest valid cell of each window: darknet's ``[maxpool]``.

    Window i starts at cell ``i * stride - padding // 2``, so ``padding`` is the total of both sides. With size 2
    and stride 2, odd sizes are rounded up. An odd size with stride 1 keeps the size of the map.

    Args:
        x: feature maps.
        size: height and width of a window.
        stride: step between windows; ``size`` if None.
        padding: cells added to the height and to the width; ``size - 1`` if None. With 0, cells that do not fill a
            window are left out.

    Shape:
        (N, C, H, W) -> (N, C, H', W') with H' = (H + padding - size) // stride + 1

    Raises:
        ValueError: a size is below 1, a window would be only padding, or the map is smaller than one window.
    """
    stride, padding = _resolve_geometry(size, stride, padding)
    return F.max_pool2d(_pad_to_windows(x, size, stride, padding, fill=-torch.inf), size, stride)


@torch.fx.wrap
def local_avg_pool2d(x: Tensor, size: int, stride: int | None = None, padding: int | None = None) -> Tensor:
    """Average the valid cells of each window: darknet's ``[local_avgpool]``.

    The windows are those of `darknet_max_pool2d`. A window at the edge divides by its number of valid cells.

    Shape:
        (N, C, H, W) -> (N, C, H', W') with H' = (H + padding - size) // stride + 1
    """
    stride, padding = _resolve_geometry(size, stride, padding)
    framed = _pad_to_windows(x, size, stride, padding, fill=0.0)
    if framed is x:
        return F.avg_pool2d(x, size, stride)
    valid = _pad_to_windows(torch.ones_like(x[:1, :1]), size, stride, padding, fill=0.0)
    total, cells = (F.avg_pool2d(part, size, stride, divisor_override=1) for part in (framed, valid))
    return total / cells


class DarknetMaxPool2d(nn.Module):
    """`darknet_max_pool2d` as a module.

    Shape:
        (N, C, H, W) -> (N, C, H', W') with H' = (H + padding - size) // stride + 1
    """

    def __init__(self, size: int, stride: int | None = None, padding: int | None = None) -> None:
        super().__init__()
        self.size = size
        self.stride, self.padding = _resolve_geometry(size, stride, padding)

    def forward(self, x: Tensor) -> Tensor:
        """Take the largest cell of each window."""
        return darknet_max_pool2d(x, self.size, self.stride, self.padding)

    def extra_repr(self) -> str:
        """Show the windows in ``print(model)``."""
        return f"{self.size}, stride={self.stride}, padding={self.padding}"


class LocalAvgPool2d(DarknetMaxPool2d):
    """`local_avg_pool2d` as a module.

    Shape:
        (N, C, H, W) -> (N, C, H', W') with H' = (H + padding - size) // stride + 1
    """

    def forward(self, x: Tensor) -> Tensor:
        """Average the cells of each window."""
        return local_avg_pool2d(x, self.size, self.stride, self.padding)


class HalvingMaxPool2d(nn.MaxPool2d):
    """2x2 max pool of stride 2 that rounds odd sizes up, as darknet's.

    In training it keeps one byte for each cell of its result, unless ``recompute`` is False (see `set_recompute`).

    Shape:
        (N, C, H, W) -> (N, C, ceil(H / 2), ceil(W / 2))
    """

    recompute = True

    def __init__(self) -> None:
        super().__init__(2, ceil_mode=True)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  (the name of the base class)
        """Take the largest of four cells."""
        if self.recompute and is_recomputable(input):
            return halve(input)
        return F.max_pool2d(input, 2, ceil_mode=True)


class DilatedMaxPool2d(nn.Module):
    """2x2 max pool that keeps the size: each cell, and those ``dilation`` to the right, below, and both.

    Cells outside do not count. Every ``dilation``-th cell of the result is that of a 2x2 max pool of stride 2 on every
    ``dilation``-th cell of the input, where ``dilation`` is a power of 2.

    Shape:
        (N, C, H, W) -> the same
    """

    def __init__(self, dilation: int) -> None:
        super().__init__()
        self.dilation = dilation

    def forward(self, x: Tensor) -> Tensor:
        """Take the largest of four cells."""
        framed = F.pad(x, (0, self.dilation, 0, self.dilation), value=-torch.inf)
        return F.max_pool2d(framed, 2, stride=1, dilation=self.dilation)

    def extra_repr(self) -> str:
        """Show the dilation in ``print(model)``."""
        return f"dilation={self.dilation}"


def _resolve_geometry(size: int, stride: int | None, padding: int | None) -> tuple[int, int]:
    stride = size if stride is None else stride
    padding = size - 1 if padding is None else padding
    if size < 1 or stride < 1:
        raise ValueError(f"pooling size={size}, stride={stride} must be at least 1")
    if not 0 <= padding <= 2 * size - 2:
        raise ValueError(f"pooling padding={padding} must lie in [0, {2 * size - 2}]: a window would hold no cell")
    return stride, padding


def _pad_to_windows(x: Tensor, size: int, stride: int, padding: int, *, fill: float) -> Tensor:
    """Add or remove cells at the edges so that the windows cover the map exactly."""
    top, bottom = _find_margins(x.shape[2], size, stride, padding)
    left, right = _find_margins(x.shape[3], size, stride, padding)
    margins = (left, right, top, bottom)
    return F.pad(x, margins, value=fill) if any(margins) else x


def _find_margins(length: int, size: int, stride: int, padding: int) -> tuple[int, int]:
    windows = (length + padding - size) // stride + 1
    if windows < 1:
        raise ValueError(f"pooling size={size}, padding={padding} does not fit into a length of {length}")
    before = padding // 2
    return before, (windows - 1) * stride + size - before - length
