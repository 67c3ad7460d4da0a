"""Shares of all shortcuts of a network and their gradients, in one kernel each.

The weights of all shortcuts are one vector. A row of ``table`` describes one shortcut: where its weights begin, its
number of inputs and its number of columns (1, or the channels). The grid is (shortcuts, blocks of columns).
"""

import triton
import triton.language as tl

EPSILON = tl.constexpr(1e-4)


@triton.jit
def load_raw(weights, table, column, inputs, columns, floor, NORMALIZATION: tl.constexpr, BR: tl.constexpr):
    """Load the weights of some columns, (BR, BC).

    Return the weights, what is divided by its sum, the sum, which entries exist and their places.
    """
    start = tl.load(table + tl.program_id(0) * 3)
    row = tl.arange(0, BR)
    exists = (row < inputs)[:, None] & (column < columns)[None, :]
    place = start + row[:, None] * columns + column[None, :]
    weight = tl.load(weights + place, mask=exists, other=0.0).to(tl.float32)
    raw = weight
    if NORMALIZATION == "relu":
        raw = tl.where(exists, tl.where(weight < floor, floor, weight), 0.0)
    if NORMALIZATION == "softmax":
        largest = tl.max(tl.where(exists, weight, float("-inf")), 0)
        raw = tl.where(exists, tl.exp(weight - largest[None, :]), 0.0)
    if NORMALIZATION == "sigmoid":
        raw = 2.0 / (1.0 + tl.exp(-weight))
    total = EPSILON + tl.sum(raw, 0)
    if NORMALIZATION == "none":
        total = tl.full(total.shape, 1.0, tl.float32)
    if NORMALIZATION == "sigmoid":
        total = tl.full(total.shape, 0.0, tl.float32) + inputs
    return weight, raw, total[None, :], exists, place


@triton.jit
def write_shares(
    weights, shares, table, floor, NORMALIZATION: tl.constexpr, BR: tl.constexpr, BC: tl.constexpr
):  # fmt: skip
    """Write the shares of one shortcut."""
    inputs = tl.load(table + tl.program_id(0) * 3 + 1)
    columns = tl.load(table + tl.program_id(0) * 3 + 2)
    column = tl.program_id(1) * BC + tl.arange(0, BC)
    _, raw, total, exists, place = load_raw(weights, table, column, inputs, columns, floor, NORMALIZATION, BR)
    tl.store(shares + place, raw / total, mask=exists)


@triton.jit
def write_share_gradients(
    gradients, weights, of_weights, table, floor, NORMALIZATION: tl.constexpr, DARKNET: tl.constexpr,
    BR: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """Write the gradients of the weights of one shortcut."""
    inputs = tl.load(table + tl.program_id(0) * 3 + 1)
    columns = tl.load(table + tl.program_id(0) * 3 + 2)
    column = tl.program_id(1) * BC + tl.arange(0, BC)
    weight, raw, total, exists, place = load_raw(weights, table, column, inputs, columns, floor, NORMALIZATION, BR)
    gradient = tl.load(gradients + place, mask=exists, other=0.0).to(tl.float32)
    share = raw / total
    if NORMALIZATION == "sigmoid":
        gradient = gradient * share * (1.0 - raw / 2.0)
    if NORMALIZATION == "softmax" and DARKNET:
        gradient = gradient * share * (1.0 - share)
    if NORMALIZATION == "softmax" and not DARKNET:
        gradient = share * (gradient - tl.sum(share * gradient, 0)[None, :])
    if NORMALIZATION == "relu" and DARKNET:
        gradient = gradient * share
    if NORMALIZATION == "relu" and not DARKNET:
        centred = (gradient - tl.sum(share * gradient, 0)[None, :]) / total
        gradient = tl.where(weight > floor, centred, 0.0)
    tl.store(of_weights + place, gradient, mask=exists)
