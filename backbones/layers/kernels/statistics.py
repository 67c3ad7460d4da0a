"""Mean and variance of each channel, and the running statistics.

Each program measures some rows of the (cells, channels) matrix by Chan's update, which keeps its precision where the
mean is large. A second kernel combines the programs in a fixed order: no atomics, so the result is always the same.
"""

import triton
import triton.language as tl


@triton.jit
def measure_part(x, means, squares, cells, stride, iterations, C: tl.constexpr, BM: tl.constexpr, BC: tl.constexpr):
    """Write mean and sum of squared deviations of the rows of one program, (G * programs, C) each.

    ``cells`` is the number of rows of a group; the grid is (programs, blocks of channels, G).
    """
    channel = tl.program_id(1) * BC + tl.arange(0, BC)
    mean = tl.zeros([BC], tl.float32)
    square = tl.zeros([BC], tl.float32)
    count = 0.0
    for iteration in range(iterations):
        row = (tl.program_id(0) * iterations + iteration) * BM + tl.arange(0, BM)
        valid = row < cells
        inside = valid[:, None] & (channel < C)[None, :]
        place = (tl.program_id(2) * cells + row).to(tl.int64)[:, None] * stride + channel[None, :]
        tile = tl.load(x + place, mask=inside, other=0.0).to(tl.float32)
        taken = tl.sum(valid.to(tl.float32), 0)
        own = tl.sum(tile, 0) / tl.maximum(taken, 1.0)
        deviation = tl.where(inside, tile - own[None, :], 0.0)
        total = tl.maximum(count + taken, 1.0)
        difference = own - mean
        mean += difference * (taken / total)
        square += tl.sum(deviation * deviation, 0) + difference * difference * (count * taken / total)
        count += taken
    part = (tl.program_id(2) * tl.num_programs(0) + tl.program_id(0)) * C + channel
    tl.store(means + part, mean, mask=channel < C)
    tl.store(squares + part, square, mask=channel < C)


@triton.jit
def load_parts(x, group, start, parts, channel, C: tl.constexpr, BP: tl.constexpr):
    """Load what some programs measured, (BP, BC); zero where there is no program or channel."""
    part = start + tl.arange(0, BP)
    inside = (part < parts)[:, None] & (channel < C)[None, :]
    return tl.load(x + (group * parts + part)[:, None] * C + channel[None, :], mask=inside, other=0.0)


@triton.jit
def count_cells(start, cells, part_cells, BP: tl.constexpr):
    """Return the number of rows that each of some programs measured."""
    part = start + tl.arange(0, BP)
    return tl.maximum(tl.minimum(cells - part * part_cells, part_cells), 0).to(tl.float32)[:, None]


@triton.jit
def combine_group(
    means, squares, group, cells, part_cells, parts, channel, C: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr
):
    """Return the mean and the sum of squared deviations of one group."""
    mean = tl.zeros([BC], tl.float32)
    for start in range(0, parts, BP):
        own = load_parts(means, group, start, parts, channel, C, BP)
        mean += tl.sum(own * (count_cells(start, cells, part_cells, BP) / cells), 0)
    square = tl.zeros([BC], tl.float32)
    for start in range(0, parts, BP):
        difference = load_parts(means, group, start, parts, channel, C, BP) - mean[None, :]
        count = count_cells(start, cells, part_cells, BP)
        own = load_parts(squares, group, start, parts, channel, C, BP)
        square += tl.sum(own + tl.where(count > 0, difference * difference * count, 0.0), 0)
    return mean, square


@triton.jit
def combine_parts(
    means, squares, mean_out, var_out, running_mean, running_var, tracked, cells, part_cells, parts, keep, take,
    G: tl.constexpr, C: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr, HAS_RUNNING: tl.constexpr,
    HAS_TRACKED: tl.constexpr,
):  # fmt: skip
    """Write mean and biased variance of each group, (G, C), and update the running ones; the grid is (blocks of C,).

    ``part_cells`` is the number of rows of each program but the last ones, which have what is left of ``cells``.
    """
    channel = tl.program_id(0) * BC + tl.arange(0, BC)
    exists = channel < C
    mean_sum = tl.zeros([BC], tl.float32)
    var_sum = tl.zeros([BC], tl.float32)
    for group in range(G):
        mean, square = combine_group(means, squares, group, cells, part_cells, parts, channel, C, BP, BC)
        tl.store(mean_out + group * C + channel, mean, mask=exists)
        tl.store(var_out + group * C + channel, square / cells, mask=exists)
        mean_sum += mean
        var_sum += square / (cells - 1)
    if HAS_RUNNING:
        old = tl.load(running_mean + channel, mask=exists)
        tl.store(running_mean + channel, keep * old + take * mean_sum, mask=exists)
        old = tl.load(running_var + channel, mask=exists)
        tl.store(running_var + channel, keep * old + take * var_sum, mask=exists)
    if HAS_TRACKED and tl.program_id(0) == 0:
        tl.store(tracked, tl.load(tracked) + G)
