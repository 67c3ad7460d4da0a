"""Value and gradients of an expression: normalize, activate, merge and activate in one pass over NHWC maps.

Maps are (cells, channels) matrices whose rows may be longer than the channels (a slice of a concatenation). The grid of
all but one kernel is (blocks of rows or programs, blocks of channels, groups). Arguments that kernels share:

* ``vectors``: mean, var, weight, bias, slopes, out_slopes and shares of the `Expression`. A pointer that the expression
  does not have is never read.
* ``numbers``: eps, slope and out_slope of the expression, and the number of rows of a group.
* ``others`` and ``strides``: the further inputs and the lengths of their rows; ``WIDTHS``: their channels.
* ``NORM``, ``ACT``, ``OUT_ACT``, ``MAX``: the parts of the expression. ``SLOPES``, ``OUT_SLOPES``, ``SHARES``: 0 for
  none, 1 for one value for all channels, 2 for one for each.
"""

import triton
import triton.language as tl

from backbones.layers.kernels.elementwise import activate, differentiate


@triton.jit
def load_tile(x, row, channel, stride, inside, other):
    """Load some rows of some channels in single precision."""
    return tl.load(x + row.to(tl.int64)[:, None] * stride + channel[None, :], mask=inside, other=other).to(tl.float32)


@triton.jit
def store_tile(x, row, channel, stride, inside, value):
    """Store some rows of some channels in the type of the map."""
    place = row.to(tl.int64)[:, None] * stride + channel[None, :]
    tl.store(x + place, value.to(x.dtype.element_ty), mask=inside)


@triton.jit
def find_rows(block, channel, cells, C: tl.constexpr, BM: tl.constexpr):
    """Return the rows of a block of this program's group, and which rows and cells exist."""
    local = block * BM + tl.arange(0, BM)
    valid = local < cells
    return tl.program_id(2) * cells + local, valid, valid[:, None] & (channel < C)[None, :]


@triton.jit
def load_share(shares, index, channel, C: tl.constexpr, SHARES: tl.constexpr):
    """Load the share of an input for each channel."""
    if SHARES == 0:
        return tl.full(channel.shape, 1.0, tl.float32)
    if SHARES == 1:
        return tl.full(channel.shape, 0.0, tl.float32) + tl.load(shares + index).to(tl.float32)
    return tl.load(shares + index * C + channel, mask=channel < C, other=0.0).to(tl.float32)


@triton.jit
def load_slope(slopes, slope, channel, C: tl.constexpr, SLOPES: tl.constexpr):
    """Load the slope of an activation for each channel; without learned ones it is the number ``slope``."""
    if SLOPES == 0:
        return tl.full(channel.shape, 0.0, tl.float32) + slope
    return load_share(slopes, 0, channel, C, SLOPES)


@triton.jit
def load_norm(vectors, numbers, group, channel, C: tl.constexpr, NORM: tl.constexpr):
    """Load mean, 1 / standard deviation, weight and bias of each channel."""
    if NORM:
        exists = channel < C
        place = group * C + channel
        inverse = 1.0 / tl.sqrt_rn(tl.load(vectors[1] + place, mask=exists, other=1.0) + numbers[0])
        mean = tl.load(vectors[0] + place, mask=exists, other=0.0)
        weight = tl.load(vectors[2] + channel, mask=exists, other=0.0).to(tl.float32)
        return mean, inverse, weight, tl.load(vectors[3] + channel, mask=exists, other=0.0).to(tl.float32)
    zero = tl.full(channel.shape, 0.0, tl.float32)
    return zero, zero + 1.0, zero + 1.0, zero


@triton.jit
def merge_others(
    first, others, strides, shares, row, channel, valid, C: tl.constexpr, WIDTHS: tl.constexpr, SHARES: tl.constexpr,
    MAX: tl.constexpr,
):  # fmt: skip
    """Return the weighted sum or the maximum of a tile and the same place of the other inputs."""
    total = first * load_share(shares, 0, channel, C, SHARES)[None, :]
    for j in tl.static_range(len(WIDTHS)):
        inside = valid[:, None] & (channel < tl.minimum(WIDTHS[j], C))[None, :]
        if MAX:
            x = load_tile(others[j], row, channel, strides[j], inside, float("-inf"))
            total = tl.maximum(total, x, propagate_nan=tl.PropagateNan.ALL)
        else:
            x = load_tile(others[j], row, channel, strides[j], inside, 0.0)
            total += x * load_share(shares, j + 1, channel, C, SHARES)[None, :]
    return total


@triton.jit
def write_value(
    x, y, vectors, others, strides, numbers, x_stride, C: tl.constexpr, WIDTHS: tl.constexpr, NORM: tl.constexpr,
    ACT: tl.constexpr, OUT_ACT: tl.constexpr, SLOPES: tl.constexpr, OUT_SLOPES: tl.constexpr, SHARES: tl.constexpr,
    MAX: tl.constexpr, BM: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """Write the value, dense."""
    group = tl.program_id(2)
    channel = tl.program_id(1) * BC + tl.arange(0, BC)
    row, valid, inside = find_rows(tl.program_id(0), channel, numbers[3], C, BM)
    mean, inverse, weight, bias = load_norm(vectors, numbers, group, channel, C, NORM)
    standard = (load_tile(x, row, channel, x_stride, inside, 0.0) - mean[None, :]) * inverse[None, :]
    slope = load_slope(vectors[4], numbers[1], channel, C, SLOPES)[None, :]
    first = activate(standard * weight[None, :] + bias[None, :], slope, ACT)
    total = merge_others(first, others, strides, vectors[6], row, channel, valid, C, WIDTHS, SHARES, MAX)
    out_slope = load_slope(vectors[5], numbers[2], channel, C, OUT_SLOPES)[None, :]
    store_tile(y, row, channel, C, inside, activate(total, out_slope, OUT_ACT))


@triton.jit
def add_row(sums, index, tile, names):
    """Add the sum of each channel of a tile to row ``index`` of (rows, channels)."""
    return tl.where((names == index)[:, None], sums + tl.sum(tile, 0)[None, :], sums)


@triton.jit
def add_shares(
    sums, names, start, given, first, others, strides, row, channel, valid, C: tl.constexpr, WIDTHS: tl.constexpr
):
    """Add the gradients of the shares, which begin at row ``start``."""
    sums = add_row(sums, start, given * first, names)
    for j in tl.static_range(len(WIDTHS)):
        inside = valid[:, None] & (channel < tl.minimum(WIDTHS[j], C))[None, :]
        other = load_tile(others[j], row, channel, strides[j], inside, 0.0)
        sums = add_row(sums, start + 1 + j, given * other, names)
    return sums


@triton.jit
def sum_tile(
    sums, names, given, standard, row, valid, channel, norm, vectors, others, strides, numbers, C: tl.constexpr,
    WIDTHS: tl.constexpr, NORM: tl.constexpr, ACT: tl.constexpr, OUT_ACT: tl.constexpr, SLOPES: tl.constexpr,
    OUT_SLOPES: tl.constexpr, SHARES: tl.constexpr, MAX: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Return ``sums`` with those of one tile added."""
    slope = load_slope(vectors[4], numbers[1], channel, C, SLOPES)[None, :]
    normal = standard * norm[2][None, :] + norm[3][None, :]
    first = activate(normal, slope, ACT)
    if OUT_ACT != "linear" or MAX:
        total = merge_others(first, others, strides, vectors[6], row, channel, valid, C, WIDTHS, SHARES, MAX)
        out_slope = load_slope(vectors[5], numbers[2], channel, C, OUT_SLOPES)[None, :]
        if OUT_SLOPES:
            sums = add_row(sums, ROWS - 1, tl.where(total > 0, 0.0, given * total), names)
        given = differentiate(given, total, out_slope, OUT_ACT)
        if MAX:
            given = tl.where((first == total) | (first != first), given, 0.0)
    of_first = given * load_share(vectors[6], 0, channel, C, SHARES)[None, :]
    if NORM:
        of_normal = differentiate(of_first, normal, slope, ACT)
        sums = add_row(sums, 0, of_normal, names)
        sums = add_row(sums, 1, of_normal * standard, names)
    if SLOPES:
        sums = add_row(sums, 2, tl.where(normal > 0, 0.0, of_first * normal), names)
    if SHARES:
        start: tl.constexpr = (2 if NORM else 0) + (1 if SLOPES else 0)
        sums = add_shares(sums, names, start, given, first, others, strides, row, channel, valid, C, WIDTHS)
    return sums


@triton.jit
def sum_part(
    gradient, x, parts, vectors, others, strides, numbers, x_stride, gradient_stride, iterations, C: tl.constexpr,
    WIDTHS: tl.constexpr, NORM: tl.constexpr, ACT: tl.constexpr, OUT_ACT: tl.constexpr, SLOPES: tl.constexpr,
    OUT_SLOPES: tl.constexpr, SHARES: tl.constexpr, MAX: tl.constexpr, ROWS: tl.constexpr, BM: tl.constexpr,
    BC: tl.constexpr, BR: tl.constexpr,
):  # fmt: skip
    """Write the rows of the gradients over the cells of one program, (G * programs, ROWS, C)."""
    group = tl.program_id(2)
    channel = tl.program_id(1) * BC + tl.arange(0, BC)
    norm = load_norm(vectors, numbers, group, channel, C, NORM)
    names = tl.arange(0, BR)
    sums = tl.zeros([BR, BC], tl.float32)
    for iteration in range(iterations):
        block = tl.program_id(0) * iterations + iteration
        row, valid, inside = find_rows(block, channel, numbers[3], C, BM)
        standard = (load_tile(x, row, channel, x_stride, inside, 0.0) - norm[0][None, :]) * norm[1][None, :]
        given = load_tile(gradient, row, channel, gradient_stride, inside, 0.0)
        sums = sum_tile(
            sums, names, given, standard, row, valid, channel, norm, vectors, others, strides, numbers, C, WIDTHS, NORM,
            ACT, OUT_ACT, SLOPES, OUT_SLOPES, SHARES, MAX, ROWS,
        )  # fmt: skip
    part = group * tl.num_programs(0) + tl.program_id(0)
    place = (part * ROWS + names)[:, None] * C + channel[None, :]
    tl.store(parts + place, sums, mask=(names < ROWS)[:, None] & (channel < C)[None, :])


@triton.jit
def combine_rows(parts, rows, sums, cells, count, G: tl.constexpr, C: tl.constexpr, ROWS: tl.constexpr,
    NORM: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr):  # fmt: skip
    """Write the rows, (ROWS, C), and the means of the first two over each group, (2, G, C).

    The grid is (blocks of channels, ROWS); ``count`` is the number of programs of a group, ``cells`` that of its rows.
    """
    channel = tl.program_id(0) * BC + tl.arange(0, BC)
    name = tl.program_id(1)
    exists = channel < C
    total = tl.zeros([BC], tl.float32)
    for group in range(G):
        own = tl.zeros([BC], tl.float32)
        for start in range(0, count, BP):
            part = start + tl.arange(0, BP)
            place = ((group * count + part) * ROWS + name)[:, None] * C + channel[None, :]
            inside = (part < count)[:, None] & exists[None, :]
            own += tl.sum(tl.load(parts + place, mask=inside, other=0.0), 0)
        if NORM and name < 2:
            tl.store(sums + (name * G + group) * C + channel, own / cells, mask=exists)
        total += own
    tl.store(rows + name * C + channel, total, mask=exists)


@triton.jit
def write_others(
    given, total, free, of_others, others, strides, shares, row, channel, valid, C: tl.constexpr,
    WIDTHS: tl.constexpr, SHARES: tl.constexpr, MAX: tl.constexpr,
):  # fmt: skip
    """Write the gradient of each other input, dense; of equal inputs of a maximum the first gets it.

    ``free`` marks the cells of a maximum that no earlier input has won.
    """
    for j in tl.static_range(len(WIDTHS)):
        inside = valid[:, None] & (channel < tl.minimum(WIDTHS[j], C))[None, :]
        of_other = given * load_share(shares, j + 1, channel, C, SHARES)[None, :]
        if MAX:
            other = load_tile(others[j], row, channel, strides[j], inside, float("-inf"))
            wins = free & ((other == total) | (other != other))
            of_other = tl.where(wins, given, 0.0)
            free = free & (wins == 0)
        store_tile(of_others[j], row, channel, WIDTHS[j], inside, of_other)


@triton.jit
def centre(of_normal, standard, sums, norm, group, channel, G: tl.constexpr, C: tl.constexpr):
    """Return the gradient of the input of a batch normalization; ``sums`` are the means of `combine_rows`."""
    mean = tl.load(sums + group * C + channel, mask=channel < C, other=0.0)
    correlation = tl.load(sums + (G + group) * C + channel, mask=channel < C, other=0.0)
    return (norm[2] * norm[1])[None, :] * (of_normal - mean[None, :] - standard * correlation[None, :])


@triton.jit
def write_gradients(
    gradient, x, of_x, of_merged, of_others, sums, vectors, others, strides, numbers, x_stride, gradient_stride,
    C: tl.constexpr, G: tl.constexpr, WIDTHS: tl.constexpr, NORM: tl.constexpr, ACT: tl.constexpr,
    OUT_ACT: tl.constexpr, SLOPES: tl.constexpr, OUT_SLOPES: tl.constexpr, SHARES: tl.constexpr, MAX: tl.constexpr,
    MERGED: tl.constexpr, OTHERS: tl.constexpr, BM: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """Write the gradients of ``x`` and (OTHERS) of the other inputs, or (MERGED) the one that all others have."""
    group = tl.program_id(2)
    channel = tl.program_id(1) * BC + tl.arange(0, BC)
    row, valid, inside = find_rows(tl.program_id(0), channel, numbers[3], C, BM)
    norm = load_norm(vectors, numbers, group, channel, C, NORM)
    slope = load_slope(vectors[4], numbers[1], channel, C, SLOPES)[None, :]
    standard = (load_tile(x, row, channel, x_stride, inside, 0.0) - norm[0][None, :]) * norm[1][None, :]
    given = load_tile(gradient, row, channel, gradient_stride, inside, 0.0)
    normal = standard * norm[2][None, :] + norm[3][None, :]
    first = activate(normal, slope, ACT)
    total = first
    if OUT_ACT != "linear" or MAX:
        total = merge_others(first, others, strides, vectors[6], row, channel, valid, C, WIDTHS, SHARES, MAX)
        given = differentiate(
            given, total, load_slope(vectors[5], numbers[2], channel, C, OUT_SLOPES)[None, :], OUT_ACT
        )
    if MERGED:
        store_tile(of_merged, row, channel, C, inside, given)
    wins = inside & ((first == total) | (first != first))
    if OTHERS:
        free = inside & (wins == 0)
        write_others(
            given, total, free, of_others, others, strides, vectors[6], row, channel, valid, C, WIDTHS, SHARES, MAX
        )
    of_first = tl.where(wins, given, 0.0) if MAX else given * load_share(vectors[6], 0, channel, C, SHARES)[None, :]
    of_normal = differentiate(of_first, normal, slope, ACT)
    if NORM:
        of_normal = centre(of_normal, standard, sums, norm, group, channel, G, C)
    store_tile(of_x, row, channel, C, inside, of_normal)
