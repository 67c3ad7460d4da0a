"""Limits of the device: matrix product, copy, and the four grouped convolutions of csresnext50."""

from collections.abc import Iterator
from itertools import product

import torch
import torch.nn.functional as F

from benchmarks.gpu.plan import Plan, Row, row
from benchmarks.harness import Action, summarize

GROUPED = ((128, 64), (256, 32), (512, 16), (1024, 8))
"""Channels and side of the maps of the 3 x 3 convolutions with 32 groups, at 256 pixels."""

TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
ORDERS = {"NHWC": torch.channels_last, "NCHW": torch.contiguous_format}


def measure_ceilings(plan: Plan) -> Iterator[Row]:
    """Yield the rate of a large matrix product, and of a large copy."""
    side, numbers = (64, 1 << 16) if plan.quick else (8192, 2 << 30)
    a = torch.randn(side, side, device=plan.device).bfloat16()
    source = torch.empty(numbers, dtype=torch.bfloat16, device=plan.device)
    target = torch.empty_like(source)
    actions = {"matmul": lambda: a @ a, "copy": lambda: target.copy_(source)}
    costs = plan.measure(actions, repeats=20)
    flops, moved = 2 * side**3, 2 * source.nbytes
    for name, amount, unit in (("matmul", flops / 1e12, "TFLOP/s"), ("copy", moved / 1e9, "GB/s, read and written")):
        rates = [amount / cost for cost in costs[name]]
        yield row(f"{name}, bf16", summarize(rates)["median"], unit, spread=rates)


def measure_grouped(plan: Plan) -> Iterator[Row]:
    """Yield the milliseconds of forward and backward of each grouped convolution, in each order and type."""
    for channels, side in GROUPED:
        actions: dict[str, Action] = {}
        for (name, dtype), (order, memory) in product(TYPES.items(), ORDERS.items()):
            actions[f"{channels} channels, {side} x {side}, {name} {order}"] = grouped(
                plan, (channels // 4, 4) if plan.quick else (channels, side), dtype, memory
            )
        for name, values in plan.measure(actions, repeats=10, scale=1000).items():
            yield row(name, summarize(values)["median"], "ms, forward and backward", spread=values)


def grouped(plan: Plan, shape: tuple[int, int], dtype: torch.dtype, order: torch.memory_format) -> Action:
    """Return forward and backward of a 3 x 3 convolution with 32 groups."""
    channels, side = shape
    options = {"device": plan.device, "dtype": dtype}
    x = torch.randn(plan.batch, channels, side, side, **options).to(memory_format=order).requires_grad_()
    weight = torch.randn(channels, channels // 32, 3, 3, **options).to(memory_format=order).requires_grad_()
    gradient = torch.randn_like(x)

    def step() -> None:
        x.grad = weight.grad = None
        F.conv2d(x, weight, padding=1, groups=32).backward(gradient)

    return step
