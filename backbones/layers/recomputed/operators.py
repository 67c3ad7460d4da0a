"""The operators that autograd, torch.compile and counters see: ``torch.ops.backbones.*``.

They are registered with torch's library, so each is one node of a graph with known shapes, whatever computes it: Triton
kernels for NHWC maps on a GPU, plain torch for everything else.
"""

from collections.abc import Callable
from functools import cache
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from backbones.layers.recomputed.expression import Expression
from backbones.layers.recomputed.formula import derive, evaluate
from backbones.layers.recomputed.normalization import measure_groups, update_running

_EXPRESSION = (
    "Tensor x, Tensor? mean, Tensor? var, Tensor? weight, Tensor? bias, float eps, str act, float slope, "
    "Tensor? slopes, Tensor[] others, Tensor? shares, str kind, str out_act, float out_slope, Tensor? out_slopes"
)
"""The arguments of an operator that are an `Expression`."""

LAUNCHES = {
    "backbones::batch_statistics": 2,
    "backbones::norm_merge_backward": 3,
    "backbones::norm_merge_reduce": 2,
    "backbones::fusion_shares": 2,
    "backbones::fusion_shares_backward": 3,
}
"""Kernels that a call of an operator launches on a GPU at most, where that is not one: partial sums and their sum are
two, and weights are first copied into one vector."""

_LIBRARY = torch.library.Library("backbones", "DEF")

_Impl = Callable[..., Any]


def batch_statistics(
    x: Tensor,
    groups: int,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    tracked: Tensor | None,
    keep: float,
    take: float,
) -> tuple[Tensor, Tensor]:
    """Return mean and biased variance of each channel over each group of images, and update the running statistics.

    Args:
        x: (N, C, H, W).
        groups: number G of groups of N / G consecutive images.
        running_mean: (C,), becomes ``keep * running_mean + take * (sum of the G means)``; None leaves all as it is.
        running_var: (C,), the same with unbiased variances.
        tracked: counter of the groups.
        keep: factor of the old statistics.
        take: factor of the new ones.

    Shape:
        -> (G, C), (G, C)
    """
    mean, var = measure_groups(x, groups)
    if running_mean is not None and running_var is not None:
        cells = x[: len(x) // groups, 0].numel()
        update_running((running_mean, running_var, tracked), (mean, var), keep, take, cells=cells)
    return mean, var


def norm_merge(*arguments: Any) -> Tensor:
    """Return the value of an expression."""
    return evaluate(Expression(*arguments))


def norm_merge_backward(gradient: Tensor, *arguments: Any) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Return the gradients of an expression, see `Gradients`."""
    return derive(gradient, Expression(*arguments))


def norm_merge_reduce(gradient: Tensor, *arguments: Any) -> Tensor:
    """Return the rows of the gradients of an expression, the sums over cells."""
    e = Expression(*arguments)
    nothing = torch.zeros((), dtype=e.x.dtype, device=e.x.device).expand(2, 1, e.x.shape[1])
    return derive(gradient, e, nothing).rows


def norm_merge_apply(gradient: Tensor, sums: Tensor, *arguments: Any) -> tuple[Tensor, list[Tensor]]:
    """Return the gradients of the maps of an expression from the sums of more images, see `derive`."""
    of_x, _, of_others = derive(gradient, Expression(*arguments), sums)
    return of_x, of_others


@cache
def triton_kernels() -> ModuleType | None:
    """Return the module of the Triton kernels; None where they cannot run here, after one line that says why."""
    from backbones.layers.kernels import availability, launch  # noqa: PLC0415  (Triton is imported for a GPU only)

    return launch if availability.is_available() else None


def _choose(name: str, formula: _Impl) -> _Impl:
    """Return an implementation that uses the Triton kernels where the map allows it."""

    def run(*arguments: Any) -> Any:
        kernels = triton_kernels()
        if kernels is not None and kernels.accepts(*arguments):
            return getattr(kernels, name)(*arguments)
        return formula(*arguments)

    return run


def register(name: str, schema: str, formula: Callable[..., Any], shapes: Callable[..., Any]) -> None:
    """Define an operator of the namespace ``backbones``.

    Args:
        name: of the operator, and of its function in the module of the Triton kernels.
        schema: arguments and results.
        formula: implementation in plain torch.
        shapes: function that returns empty tensors of the right shapes.
    """
    _LIBRARY.define(f"{name}{schema}")
    _LIBRARY.impl(name, formula, "CPU")
    _LIBRARY.impl(name, _choose(name, formula), "CUDA")
    torch.library.register_fake(f"backbones::{name}", shapes, lib=_LIBRARY)


def _like(x: Tensor) -> Tensor:
    return torch.empty_like(x)


def _statistics_shapes(x: Tensor, groups: int, *_: Any) -> tuple[Tensor, Tensor]:
    kind = torch.promote_types(x.dtype, torch.float32)
    return x.new_empty((groups, x.shape[1]), dtype=kind), x.new_empty((groups, x.shape[1]), dtype=kind)


def _rows_shape(_gradient: Tensor, *arguments: Any) -> Tensor:
    e = Expression(*arguments)
    return e.x.new_empty((len(e.rows), e.x.shape[1]), dtype=torch.promote_types(e.x.dtype, torch.float32))


def _apply_shapes(_gradient: Tensor, _sums: Tensor, *arguments: Any) -> tuple[Tensor, list[Tensor]]:
    e = Expression(*arguments)
    if not e.is_plain_sum:
        return _like(e.x), [_like(x) for x in e.others]
    return _like(e.x), [_like(e.x)] if e.has_own_gradient_of_merge else []


def _backward_shapes(gradient: Tensor, *arguments: Any) -> tuple[Tensor, Tensor, list[Tensor]]:
    of_x, of_others = _apply_shapes(gradient, gradient, *arguments)
    return of_x, _rows_shape(gradient, *arguments), of_others


register(
    "batch_statistics",
    "(Tensor x, int groups, Tensor(a!)? running_mean, Tensor(b!)? running_var, Tensor(c!)? tracked, "
    "float keep, float take) -> (Tensor, Tensor)",
    batch_statistics,
    _statistics_shapes,
)
register("norm_merge", f"({_EXPRESSION}) -> Tensor", norm_merge, lambda x, *_: _like(x))
register(
    "norm_merge_backward",
    f"(Tensor gradient, {_EXPRESSION}) -> (Tensor, Tensor, Tensor[])",
    norm_merge_backward,
    _backward_shapes,
)
register("norm_merge_reduce", f"(Tensor gradient, {_EXPRESSION}) -> Tensor", norm_merge_reduce, _rows_shape)
register(
    "norm_merge_apply",
    f"(Tensor gradient, Tensor sums, {_EXPRESSION}) -> (Tensor, Tensor[])",
    norm_merge_apply,
    _apply_shapes,
)
