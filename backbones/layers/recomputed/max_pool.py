"""2x2 max pool that keeps one byte for each cell of its result; torch keeps its input and eight bytes."""

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from backbones.layers.recomputed.expression import memory_format_of
from backbones.layers.recomputed.operators import register

_OPERATORS = torch.ops.backbones


def halve(x: Tensor) -> Tensor:
    """Return the largest cell of each 2x2 window; windows at an odd edge have fewer cells.

    Of equal cells the first one gets the gradient, in reading order.

    Shape:
        (N, C, H, W) -> (N, C, ceil(H / 2), ceil(W / 2))
    """
    return cast(Tensor, _Halve.apply(x))


def max_pool_2x2(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the largest cells and their places, 2 * row + column, as bytes.

    Shape:
        (N, C, H, W) -> (N, C, ceil(H / 2), ceil(W / 2)), the same
    """
    largest, index = F.max_pool2d(x, 2, ceil_mode=True, return_indices=True)
    width = x.shape[3]
    rows, columns = (torch.arange(0, length, 2, device=x.device) for length in x.shape[2:])
    index -= rows[:, None] * width + columns  # from the first cell of the window: 0, 1, width or width + 1
    is_below = index >= width
    return largest, index.sub_(is_below * (width - 2)).to(torch.uint8)


def max_pool_2x2_backward(gradient: Tensor, place: Tensor, height: int, width: int) -> Tensor:
    """Return the gradient of the input of `max_pool_2x2`.

    Shape:
        gradient (N, C, ceil(H / 2), ceil(W / 2)), place the same -> (N, C, H, W)
    """
    shape = (*gradient.shape[:2], height, width)
    of_x = torch.empty(shape, dtype=gradient.dtype, device=gradient.device, memory_format=memory_format_of(place))
    for index in range(4):
        cells = of_x[:, :, index // 2 :: 2, index % 2 :: 2]
        rows, columns = cells.shape[2:]
        # Chosen, not multiplied: a factor of 0 would keep infinity and NaN.
        cells.copy_(torch.where(place == index, gradient, 0)[:, :, :rows, :columns])
    return of_x


class _Halve(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        largest, place = _OPERATORS.max_pool_2x2(x)
        ctx.save_for_backward(place)
        ctx.size = x.shape[2:]
        return largest

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        return _OPERATORS.max_pool_2x2_backward(gradients[0], *ctx.saved_tensors, *ctx.size)


def _pooled_shapes(x: Tensor) -> tuple[Tensor, Tensor]:
    largest = F.max_pool2d(x, 2, ceil_mode=True)
    return largest, torch.empty_like(largest, dtype=torch.uint8)


def _unpooled_shape(gradient: Tensor, place: Tensor, height: int, width: int) -> Tensor:
    shape = (*gradient.shape[:2], height, width)
    return torch.empty(shape, dtype=gradient.dtype, device=gradient.device, memory_format=memory_format_of(place))


register("max_pool_2x2", "(Tensor x) -> (Tensor, Tensor)", max_pool_2x2, _pooled_shapes)
register(
    "max_pool_2x2_backward",
    "(Tensor gradient, Tensor place, int height, int width) -> Tensor",
    max_pool_2x2_backward,
    _unpooled_shape,
)
