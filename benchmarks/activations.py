"""Cost and exactness of the activations of the activation study: time, memory, gradient, and changes of the input.

python -m benchmarks.activations [--json FILE]

Each activation follows a batch normalization and precedes a product with a learned vector, which keeps its input for
backward as the next convolution of a network does. A training step is forward and backward of this block. "Kept" and
"most alive" are in maps of the block's size in bfloat16, counted exactly, beside the input. The gradient error is the
largest difference of the input's gradient from float64, divided by the largest gradient; computed in float32.
"""

import argparse
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbones.counting import StepCounter
from backbones.layers.conv import ConvNormAct
from benchmarks.harness import Action, Result, compare, create_parser, measure, publish

CHANNELS = 64


class NaiveSwish(nn.Module):
    """x * sigmoid(x) as two operators, each of which keeps its input."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(x)


class SwishInPlace(nn.Module):
    """Swish of the thread's first code: the product overwrites the input."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mul_(torch.sigmoid(x))


class NaiveMish(nn.Module):
    """x * tanh(softplus(x)) as three operators."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.tanh(F.softplus(x))


class _SwishFunction(torch.autograd.Function):
    """Swish that keeps its input only and computes the sigmoid again in backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * torch.sigmoid(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        (x,) = ctx.saved_tensors
        share = torch.sigmoid(x)
        return gradient * (share * (1 + x * (1 - share)))


class MemoryEfficientSwish(nn.Module):
    """Swish that keeps its input only."""

    def forward(self, x: Tensor) -> Tensor:
        return _SwishFunction.apply(x)  # type: ignore[return-value]


class Block(nn.Module):
    """Batch normalization and activation, and a product that keeps its input."""

    def __init__(self, first: nn.Module) -> None:
        super().__init__()
        self.first = first
        self.weight = nn.Parameter(torch.ones(CHANNELS, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.first(x) * self.weight


def plain(act: nn.Module) -> Block:
    return Block(nn.Sequential(nn.BatchNorm2d(CHANNELS), act))


def ours(act: Any) -> Block:
    unit = ConvNormAct(CHANNELS, CHANNELS, kernel=1, act=act)
    unit.conv = nn.Identity()  # type: ignore[assignment]
    return Block(unit)


REFERENCE = "LeakyReLU in place"

CONTENDERS: dict[str, tuple[Callable[[], nn.Module], str]] = {
    REFERENCE: (lambda: nn.LeakyReLU(0.1, inplace=True), ""),
    "LeakyReLU": (lambda: nn.LeakyReLU(0.1), ""),
    "LeakyReLU, ours": (lambda: nn.LeakyReLU(0.1, inplace=True), "leaky"),
    "Swish, naive": (NaiveSwish, ""),
    "Swish, in place as in the thread": (SwishInPlace, ""),
    "Swish, memory-efficient": (MemoryEfficientSwish, ""),
    "Swish, F.silu": (nn.SiLU, ""),
    "Swish, ours": (nn.SiLU, "swish"),
    "Mish, naive": (NaiveMish, ""),
    "Mish, nn.Mish": (nn.Mish, ""),
    "Mish, ours": (nn.Mish, "mish"),
    "PReLU(1)": (nn.PReLU, ""),
    "PReLU(n)": (lambda: nn.PReLU(CHANNELS), ""),
}
"""Name -> its module, and the name of our unit where that is measured in place of a plain block."""


def create(name: str) -> Block:
    """Build the block of an activation."""
    module, unit = CONTENDERS[name]
    block = ours(unit) if unit else plain(module())
    return block.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def make_input(batch: int, size: int) -> Tensor:
    """Return a map of noise. Shape: (N, CHANNELS, size, size)."""
    noise = torch.randn(batch, CHANNELS, size, size, generator=torch.Generator().manual_seed(1))
    return noise.contiguous(memory_format=torch.channels_last)


def training(name: str, batch: int, size: int) -> Action:
    """Return forward and backward of a block."""
    block, x = create(name), make_input(batch, size)

    def step() -> None:
        block(x.detach().requires_grad_()).sum().backward()

    return step


def count(name: str, size: int) -> tuple[float, float]:
    """Return bytes kept and most bytes alive, in maps of bfloat16."""
    block, x = create(name).bfloat16(), make_input(4, size).bfloat16().requires_grad_()
    counter = StepCounter([*block.parameters(), *block.buffers(), x])
    with counter:
        output = counter.forward(lambda: block(x))
        output.backward(torch.ones_like(output))
    one = x.nelement() * x.element_size()
    return counter.kept / one, counter.peak / one


def gradient_of(name: str, dtype: torch.dtype) -> Tensor:
    block, x = create(name).to(dtype), make_input(4, 16).to(dtype).requires_grad_()
    weights = torch.randn(x.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64).to(dtype)
    (block(x) * weights).sum().backward()
    assert x.grad is not None
    return x.grad.double()


def gradient_error(name: str) -> float:
    """Return the largest error of the input's gradient in float32, relative to the largest gradient in float64."""
    reference = {"Swish": "Swish, naive", "Mish": "Mish, naive"}.get(name.partition(",")[0], name)
    exact = gradient_of(reference, torch.float64)
    return float((gradient_of(name, torch.float32) - exact).abs().max() / exact.abs().max())


def changes_input(name: str) -> bool:
    """Tell whether the activation overwrites the tensor that it is given."""
    module, unit = CONTENDERS[name]
    x = torch.linspace(-3, 3, 100 * CHANNELS).view(1, CHANNELS, 10, 10)
    given = x.clone()
    (create(name).first if unit else module())(given)
    return not torch.equal(x, given)


def describe(name: str, size: int) -> dict[str, Any]:
    """Return the exact figures of one activation."""
    kept, peak = count(name, size)
    error, changed = f"{gradient_error(name):.1e}", "yes" if changes_input(name) else "no"
    return {"activation": name, "kept": kept, "most alive": peak, "gradient error": error, "changes its input": changed}


def main() -> None:
    options = parse()
    torch.set_num_threads(1)
    actions = {name: training(name, options.batch, options.size) for name in CONTENDERS}
    scale = 1000 / options.batch
    costs = measure(actions, rounds=options.rounds, repeats=options.repeats, scale=scale)
    pairs = {f"{name} / {REFERENCE}": (name, REFERENCE) for name in CONTENDERS if name != REFERENCE}
    tables = {"Memory in maps of bfloat16, and exactness": [describe(name, options.size) for name in CONTENDERS]}
    notes = ["A ratio is a cost / that of LeakyReLU in place: above 1, the activation is slower."]
    result = Result("Activations", "CPU ms per map", costs, compare(costs, pairs), tables, notes, vars(options))
    publish(result, options.json)


def parse() -> argparse.Namespace:
    parser = create_parser(__doc__ or "")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=64, help="height and width of the map")
    parser.add_argument("--repeats", type=int, default=2, help="steps of a turn")
    return parser.parse_args()


if __name__ == "__main__":
    main()
