"""2x2 max pool of NHWC maps with places of one byte."""

import triton
import triton.language as tl


@triton.jit
def write_largest(
    x, largest, place, height, width, out_height, out_width, cells, stride, C: tl.constexpr, BM: tl.constexpr,
    BC: tl.constexpr,
):  # fmt: skip
    """Write the largest cell of each window and its place; ``cells`` is N * out_height * out_width.

    The grid is (blocks of cells, blocks of C); ``stride`` is the distance of the input's rows.
    """
    channel = tl.program_id(1) * BC + tl.arange(0, BC)
    cell = tl.program_id(0) * BM + tl.arange(0, BM)
    inside = (cell < cells)[:, None] & (channel < C)[None, :]
    image = cell // (out_height * out_width)
    top = cell // out_width % out_height * 2
    left = cell % out_width * 2
    best = tl.full([BM, BC], float("-inf"), tl.float32)
    found = tl.full([BM, BC], 0, tl.int32)
    for index in tl.static_range(4):
        row = top + index // 2
        column = left + index % 2
        exists = inside & ((row < height) & (column < width))[:, None]
        start = ((image * height + row).to(tl.int64) * width + column) * stride
        value = tl.load(x + start[:, None] + channel[None, :], mask=exists, other=float("-inf")).to(tl.float32)
        wins = (value > best) | (value != value)
        best = tl.where(wins, value, best)
        found = tl.where(wins, index, found)
    target = cell.to(tl.int64)[:, None] * C + channel[None, :]
    tl.store(largest + target, best.to(largest.dtype.element_ty), mask=inside)
    tl.store(place + target, found.to(tl.uint8), mask=inside)


@triton.jit
def write_unpooled(
    gradient, place, of_x, height, width, out_height, out_width, cells, stride, C: tl.constexpr, BM: tl.constexpr,
    BC: tl.constexpr,
):  # fmt: skip
    """Write the gradient of the input; ``cells`` is N * height * width.

    The grid is (blocks of cells, blocks of C); ``stride`` is the distance of the gradient's rows.
    """
    channel = tl.program_id(1) * BC + tl.arange(0, BC)
    cell = tl.program_id(0) * BM + tl.arange(0, BM)
    inside = (cell < cells)[:, None] & (channel < C)[None, :]
    image = cell // (height * width)
    row = cell // width % height
    column = cell % width
    window = ((image * out_height + row // 2) * out_width + column // 2).to(tl.int64)
    value = tl.load(gradient + window[:, None] * stride + channel[None, :], mask=inside, other=0.0)
    found = tl.load(place + window[:, None] * C + channel[None, :], mask=inside, other=255)
    index = (row % 2 * 2 + column % 2)[:, None]
    target = cell.to(tl.int64)[:, None] * C + channel[None, :]
    tl.store(of_x + target, tl.where(found == index, value, 0.0), mask=inside)
