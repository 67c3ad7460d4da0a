"""The operators with Triton kernels: sizes of blocks, temporary memory and launches."""

from collections.abc import Sequence
from functools import cache
from itertools import accumulate
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from backbones.layers.kernels.max_pool import write_largest, write_unpooled
from backbones.layers.kernels.merge import combine_rows, sum_part, write_gradients, write_value
from backbones.layers.kernels.shares import write_share_gradients, write_shares
from backbones.layers.kernels.statistics import combine_parts, measure_part
from backbones.layers.recomputed.expression import Expression, Gradients

PROGRAMS = 1024
"""Programs that a reduction is divided among: several for each multiprocessor of a large GPU."""

TILE = 4096
"""Cells of a map that a program holds at once."""

WARPS = 4
"""Warps of a program, Triton's default."""

WARPS_OF_MERGE = 8
"""Warps of a program that reads several maps; with fewer, sm_100 spills registers."""

MAX_CHANNELS_OF_TILE = 64
"""Channels of a tile: 128 bytes of half precision, one line of the cache."""

PARTS_OF_TILE = 64
"""Results of programs that are combined at once."""

COLUMNS_OF_SHARES = 128
"""Columns of fusion weights that a program normalizes."""

MAX_OTHERS = 15
"""Largest number of further inputs of a merge; more use torch."""

KINDS = (torch.float32, torch.bfloat16, torch.float16, torch.uint8)
"""Types of maps that the kernels accept; the places of a max pool are bytes."""


class Tiling(NamedTuple):
    """Division of the (cells, channels) matrix of each group among programs."""

    cells: int
    """Rows of a group."""
    channels: int
    """Columns."""
    groups: int
    """Groups of images."""
    rows_of_tile: int
    """Rows of a tile, a power of 2."""
    channels_of_tile: int
    """Columns of a tile, a power of 2."""

    @property
    def channel_blocks(self) -> int:
        """Tiles beside each other."""
        return triton.cdiv(self.channels, self.channels_of_tile)

    @property
    def grid(self) -> tuple[int, int, int]:
        """Programs of a kernel that visits each tile once."""
        return triton.cdiv(self.cells, self.rows_of_tile), self.channel_blocks, self.groups

    @property
    def iterations(self) -> int:
        """Tiles that each program of a reduction visits, one after the other."""
        wanted = max(1, PROGRAMS // (self.channel_blocks * self.groups))
        return triton.cdiv(self.grid[0], min(wanted, self.grid[0]))

    @property
    def parts(self) -> int:
        """Programs of a reduction for each block of channels of each group."""
        return triton.cdiv(self.grid[0], self.iterations)

    @property
    def tile(self) -> dict[str, int]:
        """Names of the sizes of a tile in the kernels."""
        return {"BM": self.rows_of_tile, "BC": self.channels_of_tile}


def tiling_of(x: Tensor, groups: int, *, inputs: int = 1) -> Tiling:
    """Return the tiling of a map; the more inputs a tile has, the smaller it is.

    Shape:
        x (N, C, H, W)
    """
    count, channels, height, width = x.shape
    columns = min(triton.next_power_of_2(channels), MAX_CHANNELS_OF_TILE)
    rows = TILE // columns if inputs == 1 else TILE // (2 * columns)
    cells = count // groups * height * width
    return Tiling(cells, channels, groups, min(rows, triton.next_power_of_2(cells)), columns)


def accepts(*arguments: Any) -> bool:
    """Tell whether the kernels can take these arguments of an operator: NHWC maps of a known type, not empty."""
    maps = [x for each in arguments for x in (each if isinstance(each, list) else [each]) if _is_map(x)]
    return len(maps) <= MAX_OTHERS + 2 and all(map(_is_rows, maps))


def batch_statistics(
    x: Tensor,
    groups: int,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    tracked: Tensor | None,
    keep: float,
    take: float,
) -> tuple[Tensor, Tensor]:
    """See `backbones.layers.recomputed.operators.batch_statistics`."""
    tiling = tiling_of(x, groups)
    means, squares = _empty(x, groups * tiling.parts, 2)
    mean, var = _empty(x, groups, 2)
    reduction = (tiling.parts, tiling.channel_blocks, groups)
    measure_part[reduction](
        x, means, squares, tiling.cells, x.stride(3), tiling.iterations, C=tiling.channels, **tiling.tile
    )
    combine_parts[(tiling.channel_blocks,)](
        *(means, squares, mean, var),
        *(_pointer(running_mean, x), _pointer(running_var, x), _pointer(tracked, x)),
        *(tiling.cells, tiling.iterations * tiling.rows_of_tile, tiling.parts, keep, take),
        G=groups,
        C=tiling.channels,
        BP=PARTS_OF_TILE,
        BC=tiling.channels_of_tile,
        HAS_RUNNING=running_mean is not None,
        HAS_TRACKED=tracked is not None,
    )
    return mean, var


def norm_merge(*arguments: Any) -> Tensor:
    """See `backbones.layers.recomputed.operators.norm_merge`."""
    e = Expression(*arguments)
    tiling, value = _tiling(e), torch.empty_like(e.x)
    write_value[tiling.grid](
        e.x,
        value,
        *_shared(e, tiling),
        e.x.stride(3),
        C=tiling.channels,
        **_constants(e),
        **tiling.tile,
        num_warps=WARPS_OF_MERGE if e.others else WARPS,
    )
    return value


def norm_merge_backward(gradient: Tensor, *arguments: Any) -> Gradients:
    """See `backbones.layers.recomputed.operators.norm_merge_backward`."""
    rows, sums = _reduce(gradient, Expression(*arguments))
    of_x, of_others = norm_merge_apply(gradient, sums, *arguments)
    return Gradients(of_x, rows, of_others)


def norm_merge_reduce(gradient: Tensor, *arguments: Any) -> Tensor:
    """See `backbones.layers.recomputed.operators.norm_merge_reduce`."""
    return _reduce(gradient, Expression(*arguments))[0]


def norm_merge_apply(gradient: Tensor, sums: Tensor, *arguments: Any) -> tuple[Tensor, list[Tensor]]:
    """See `backbones.layers.recomputed.operators.norm_merge_apply`."""
    e = Expression(*arguments)
    tiling, of_x = _tiling(e), torch.empty_like(e.x)
    of_others = [] if e.is_plain_sum else [_empty_gradient(x, e.x) for x in e.others]
    has_merged = e.has_own_gradient_of_merge
    of_merged = torch.empty_like(e.x) if has_merged else of_x
    write_gradients[tiling.grid](
        *(gradient, e.x, of_x, of_merged, tuple(of_others) or (of_x,), sums),
        *_shared(e, tiling),
        *(e.x.stride(3), gradient.stride(3)),
        C=tiling.channels,
        G=tiling.groups,
        MERGED=has_merged,
        OTHERS=bool(of_others),
        **_constants(e),
        **tiling.tile,
    )
    return of_x, [of_merged] if has_merged else of_others


def max_pool_2x2(x: Tensor) -> tuple[Tensor, Tensor]:
    """See `backbones.layers.recomputed.max_pool.max_pool_2x2`."""
    count, channels, height, width = x.shape
    shape = (count, channels, -(-height // 2), -(-width // 2))
    largest = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    place, tiling = torch.empty_like(largest, dtype=torch.uint8), tiling_of(largest, 1)
    write_largest[tiling.grid[:2]](
        *(x, largest, place, height, width, *shape[2:], tiling.cells, x.stride(3)), C=channels, **tiling.tile
    )
    return largest, place


def max_pool_2x2_backward(gradient: Tensor, place: Tensor, height: int, width: int) -> Tensor:
    """See `backbones.layers.recomputed.max_pool.max_pool_2x2_backward`."""
    count, channels, *pooled = gradient.shape
    shape = (count, channels, height, width)
    of_x = torch.empty(shape, dtype=gradient.dtype, device=gradient.device, memory_format=torch.channels_last)
    tiling = tiling_of(of_x, 1)
    write_unpooled[tiling.grid[:2]](
        *(gradient, place, of_x, height, width, *pooled, tiling.cells, gradient.stride(3)), C=channels, **tiling.tile
    )
    return of_x


def fusion_shares(weights: Sequence[Tensor], normalization: str, floor: float) -> list[Tensor]:
    """See `backbones.layers.recomputed.shares.fusion_shares`."""
    flat = _concatenate(weights)
    shares = torch.empty_like(flat)
    grid, table, rows = _describe_shortcuts(tuple(weight.shape for weight in weights), flat.device)
    write_shares[grid](flat, shares, table, floor, NORMALIZATION=normalization, BR=rows, BC=COLUMNS_OF_SHARES)
    return _split_like(shares, weights)


def fusion_shares_backward(
    gradients: Sequence[Tensor], weights: Sequence[Tensor], normalization: str, floor: float, rule: str
) -> list[Tensor]:
    """See `backbones.layers.recomputed.shares.fusion_shares_backward`."""
    flat = _concatenate(weights)
    of_weights = torch.empty_like(flat)
    grid, table, rows = _describe_shortcuts(tuple(weight.shape for weight in weights), flat.device)
    write_share_gradients[grid](
        *(_concatenate(gradients), flat, of_weights, table, floor),
        NORMALIZATION=normalization,
        DARKNET=rule == "darknet",
        BR=rows,
        BC=COLUMNS_OF_SHARES,
    )
    return _split_like(of_weights, weights)


@cache
def _describe_shortcuts(shapes: tuple[torch.Size, ...], device: torch.device) -> tuple[tuple[int, int], Tensor, int]:
    """Return the grid of the kernels of shares, their table of shortcuts and the rows of a block."""
    starts = accumulate((shape.numel() for shape in shapes[:-1]), initial=0)
    table = torch.tensor([(start, *shape) for start, shape in zip(starts, shapes, strict=True)], dtype=torch.int32)
    columns = max(shape[1] for shape in shapes)
    rows = triton.next_power_of_2(max(shape[0] for shape in shapes))
    return (len(shapes), triton.cdiv(columns, COLUMNS_OF_SHARES)), table.to(device), rows


def _concatenate(weights: Sequence[Tensor]) -> Tensor:
    return torch.cat([weight.reshape(-1) for weight in weights])


def _split_like(flat: Tensor, weights: Sequence[Tensor]) -> list[Tensor]:
    parts = flat.split([weight.numel() for weight in weights])
    return [part.view(weight.shape) for part, weight in zip(parts, weights, strict=True)]


def _reduce(gradient: Tensor, e: Expression) -> tuple[Tensor, Tensor]:
    """Return the rows of the gradients, (R, C), and the means of the first two over each group, (2, G, C)."""
    tiling, count = _tiling(e), len(e.rows)
    rows = e.x.new_empty((count, tiling.channels), dtype=torch.float32)
    sums = e.x.new_empty((2, tiling.groups, tiling.channels), dtype=torch.float32)
    if count == 0:
        return rows, sums
    parts = e.x.new_empty((tiling.groups * tiling.parts, count, tiling.channels), dtype=torch.float32)
    constants = _constants(e)
    sum_part[(tiling.parts, tiling.channel_blocks, tiling.groups)](
        *(gradient, e.x, parts),
        *_shared(e, tiling),
        *(e.x.stride(3), gradient.stride(3), tiling.iterations),
        C=tiling.channels,
        ROWS=count,
        BR=triton.next_power_of_2(count),
        **constants,
        **tiling.tile,
    )
    combine_rows[(tiling.channel_blocks, count)](
        *(parts, rows, sums, tiling.cells, tiling.parts),
        G=tiling.groups,
        C=tiling.channels,
        ROWS=count,
        NORM=constants["NORM"],
        BP=PARTS_OF_TILE,
        BC=tiling.channels_of_tile,
    )
    return rows, sums


def _tiling(e: Expression) -> Tiling:
    return tiling_of(e.x, 1 if e.mean is None else len(e.mean), inputs=1 + len(e.others))


def _shared(e: Expression, tiling: Tiling) -> tuple[Any, ...]:
    """Return the arguments that the kernels share: vectors, others, strides and numbers."""
    vectors = [_pointer(x, e.x) for x in (e.mean, e.var, e.weight, e.bias, e.slopes, e.out_slopes, e.shares)]
    others = tuple(e.others) or (e.x,)
    numbers = (e.eps, e.slope, e.out_slope, tiling.cells)
    return tuple(vectors), others, tuple(x.stride(3) for x in others), numbers


def _constants(e: Expression) -> dict[str, Any]:
    """Return what a kernel is compiled for."""
    return {
        "WIDTHS": tuple(x.shape[1] for x in e.others),
        "NORM": e.mean is not None,
        "ACT": e.act,
        "OUT_ACT": e.out_act,
        "SLOPES": _kind(e.slopes, 0),
        "OUT_SLOPES": _kind(e.out_slopes, 0),
        "SHARES": _kind(e.shares, 1),
        "MAX": e.kind == "max",
    }


def _kind(parameter: Tensor | None, axis: int) -> int:
    """Return 0 for no parameter, 1 for one value for all channels, 2 for one for each."""
    return 0 if parameter is None else 1 if parameter.shape[axis] == 1 else 2


def _pointer(x: Tensor | None, other: Tensor) -> Tensor:
    """Return ``x``, or any tensor of the same device for a pointer that is never read."""
    return other if x is None else x


def _empty(x: Tensor, rows: int, count: int) -> tuple[Tensor, ...]:
    return x.new_empty((count, rows, x.shape[1]), dtype=torch.float32).unbind(0)


def _empty_gradient(x: Tensor, first: Tensor) -> Tensor:
    """Return memory for a gradient; channels beyond those of the first input stay zero."""
    gradient = torch.empty(x.shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    return gradient.zero_() if x.shape[1] > first.shape[1] else gradient


def _is_map(x: Any) -> bool:
    return isinstance(x, Tensor) and x.dim() == 4


def _is_rows(x: Tensor) -> bool:
    """Tell whether a map is a matrix of (cells, channels) whose rows have one distance from each other."""
    count, channels, height, width = x.shape
    if x.numel() == 0 or x.dtype not in KINDS:
        return False
    row = x.stride(3) if width > 1 else x.stride(2) if height > 1 else x.stride(0) if count > 1 else channels
    expected = (height * width * row, 1, width * row, row)
    sizes = (count, channels, height, width)
    return row >= channels and all(
        size == 1 or stride == want for size, stride, want in zip(sizes, x.stride(), expected, strict=True)
    )
