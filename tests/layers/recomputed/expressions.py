"""The expression of the operators by autograd through torch's own functions, and inputs for it in double precision."""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from backbones.layers.recomputed.function import Norm, norm_merge
from backbones.layers.recomputed.pointwise import Pointwise

EPS = 1e-5
ACTS: dict[str, Callable[[Tensor, Tensor | None], Tensor]] = {
    "linear": lambda x, _: x,
    "relu": lambda x, _: F.relu(x),
    "leaky": lambda x, _: F.leaky_relu(x, 0.1),
    "mish": lambda x, _: F.mish(x),
    "swish": lambda x, _: F.silu(x),
    "prelu": F.prelu,
    "prelu_channel": F.prelu,
}
WIDTH = 6
OTHERS = (6, 4, 9)
"""Channels of the other inputs: as many, fewer and more."""
SHAPE = (4, WIDTH, 5, 3)


class Case(NamedTuple):
    """Expression to compute."""

    act: str = "linear"
    out_act: str = "linear"
    others: tuple[int, ...] = OTHERS
    kind: str = "sum"
    columns: int = 0
    """Columns of the shares: 0 for a plain sum."""
    groups: int = 1
    """0 leaves out the normalization."""
    memory_format: torch.memory_format = torch.contiguous_format


class Inputs(NamedTuple):
    """Leaves of the graph."""

    x: Tensor
    weight: Tensor | None
    bias: Tensor | None
    shares: Tensor | None
    slopes: Tensor | None
    out_slopes: Tensor | None
    others: list[Tensor]

    @property
    def leaves(self) -> list[Tensor]:
        return [x for x in (*self[:-1], *self.others) if isinstance(x, Tensor)]


def create_inputs(case: Case, *, shape: tuple[int, ...] = SHAPE, seed: int = 0) -> Inputs:
    """Draw inputs: maps of mean 1 and deviation 3, all parameters away from their special values."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*sizes: int, factor: float = 1.0, shift: float = 0.0) -> Tensor:
        return torch.randn(sizes, generator=generator, dtype=torch.float64) * factor + shift

    def draw_map(channels: int) -> Tensor:
        x = draw(shape[0], channels, *shape[2:], factor=3.0, shift=1.0)
        return x.contiguous(memory_format=case.memory_format).requires_grad_()

    def draw_slopes(act: str) -> Tensor | None:
        sizes = {"prelu": 1, "prelu_channel": shape[1]}
        return draw(sizes[act], factor=0.3).requires_grad_() if act in sizes else None

    affine = [draw(shape[1], shift=1.0).requires_grad_() if case.groups else None for _ in range(2)]
    shares = draw(1 + len(case.others), case.columns).requires_grad_() if case.columns else None
    slopes = [draw_slopes(act) for act in (case.act, case.out_act)]
    return Inputs(draw_map(shape[1]), *affine, shares, *slopes, [draw_map(width) for width in case.others])


def expect(case: Case, inputs: Inputs) -> Tensor:
    """Return the value by torch's own functions."""
    x = inputs.x
    if case.groups:
        parts = x.split(len(x) // case.groups)
        x = torch.cat([F.batch_norm(part, None, None, inputs.weight, inputs.bias, True, 0.0, EPS) for part in parts])
    first = ACTS[case.act](x, inputs.slopes)
    fill = -torch.inf if case.kind == "max" else 0.0
    missing = [(0, 0, 0, 0, 0, max(0, x.shape[1] - other.shape[1])) for other in inputs.others]
    fitted = [F.pad(other[:, : x.shape[1]], pad, value=fill) for other, pad in zip(inputs.others, missing, strict=True)]
    stacked = torch.stack([first, *fitted])
    if case.kind == "max":
        merged = stacked.max(0).values
    else:
        merged = (stacked if inputs.shares is None else stacked * inputs.shares[:, None, :, None, None]).sum(0)
    return ACTS[case.out_act](merged, inputs.out_slopes)


def compute(case: Case, inputs: Inputs) -> Tensor:
    """Return the value by the operators."""
    norm = None
    if inputs.weight is not None and inputs.bias is not None:
        norm = Norm(inputs.weight, inputs.bias, EPS, None, None, None, 1.0, 0.0, case.groups)
    inner, outer = (
        Pointwise(act.removesuffix("_channel"), 0.1, slopes)
        for act, slopes in ((case.act, inputs.slopes), (case.out_act, inputs.out_slopes))
    )
    return norm_merge(inputs.x, norm, inner, inputs.others, shares=inputs.shares, kind=case.kind, out_act=outer)


def derive_all(value: Tensor, inputs: Inputs, *, seed: int = 1) -> list[Tensor]:
    """Return the value and the gradient of each leaf for a random gradient in the memory order of the value."""
    drawn = torch.randn(value.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    gradient = torch.empty_like(value).copy_(drawn)
    return [value.detach(), *torch.autograd.grad(value, inputs.leaves, gradient)]
