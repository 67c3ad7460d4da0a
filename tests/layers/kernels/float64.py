"""Values and gradients of an expression in double precision, by autograd through torch's own functions."""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Case(NamedTuple):
    """Expression ``out_act(merge(act(norm(x)), others))`` to compute."""

    act: str = "linear"
    out_act: str = "linear"
    widths: tuple[int, ...] = ()
    """Channels of the other inputs, relative to those of the first."""
    kind: str = "sum"
    shares: str = "none"
    """``none``, ``per_feature`` or ``per_channel``."""
    groups: int = 1
    """0 leaves out the normalization."""
    slopes: str = "per_channel"
    """Learned slopes of prelu: ``one`` or ``per_channel``."""


class Results(NamedTuple):
    """Results of an expression."""

    value: Tensor
    of_x: Tensor
    of_merged: Tensor
    of_others: list[Tensor]
    rows: Tensor
    """(R, C), gradients of bias, weight, slopes, shares and out_slopes for each channel."""


SLOPE, OUT_SLOPE, EPS = 0.1, 0.2, 1e-5


def create_arguments(case: Case, x: Tensor, seed: int = 0) -> tuple[Any, ...]:
    """Return the arguments of the operators for a case.

    Shape:
        x (N, C, H, W)
    """
    generator = torch.Generator().manual_seed(seed)
    channels = x.shape[1]
    draw = lambda *shape: torch.rand(shape, generator=generator) + 0.5  # noqa: E731
    others = [make_map((len(x), channels + w, *x.shape[2:]), x.dtype, generator) for w in case.widths]
    mean = var = weight = bias = None
    if case.groups:
        var, mean = torch.var_mean(x.double().unflatten(0, (case.groups, -1)), (1, 3, 4), correction=0)
        mean, var, weight, bias = mean.float(), var.float(), draw(channels), draw(channels) - 1
    columns = {"none": 0, "per_feature": 1, "per_channel": channels}[case.shares]
    shares = draw(1 + len(others), columns) if columns else None
    slopes, out_slopes = (
        draw(channels if case.slopes == "per_channel" else 1) / 4 if act == "prelu" else None
        for act in (case.act, case.out_act)
    )
    inner, outer = (case.act, SLOPE, slopes), (case.out_act, OUT_SLOPE, out_slopes)
    return x, mean, var, weight, bias, EPS, *inner, others, shares, case.kind, *outer


def make_map(shape: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    """Return a random map in channels_last."""
    return (torch.randn(shape, generator=generator) * 2 + 0.5).to(dtype, memory_format=torch.channels_last)


def compute(case: Case, gradient: Tensor, arguments: tuple[Any, ...]) -> Results:
    """Return the results in double precision."""
    x, _, _, weight, bias, _, _, _, slopes, others, shares, _, _, _, out_slopes = arguments
    channels = x.shape[1]
    leaf = lambda tensor: tensor.double().requires_grad_()  # noqa: E731
    of_channel = lambda tensor: leaf(tensor.expand(*tensor.shape[:-1], channels).clone())  # noqa: E731
    x, others = leaf(x), [leaf(other) for other in others]
    rows = [leaf(bias), leaf(weight)] if case.groups else []
    normal = _normalize(x, rows, case.groups) if case.groups else x
    inner = [of_channel(slopes)] if slopes is not None else []
    factors = [of_channel(share) for share in shares] if shares is not None else []
    outer = [of_channel(out_slopes)] if out_slopes is not None else []
    merged = _merge([_activate(normal, case.act, SLOPE, inner), *others], case.kind, factors)
    merged.retain_grad()
    value = _activate(merged, case.out_act, OUT_SLOPE, outer)
    value.backward(gradient.double())
    rows = [row.grad for row in (*rows, *inner, *factors, *outer)]
    stacked = torch.stack(rows) if rows else torch.zeros(0, channels)
    return Results(value.detach(), _grad(x), _grad(merged), [_grad(other) for other in others], stacked)


def _grad(tensor: Tensor) -> Tensor:
    assert tensor.grad is not None
    return tensor.grad


def _normalize(x: Tensor, rows: list[Tensor], groups: int) -> Tensor:
    bias, weight = rows
    return torch.cat([F.batch_norm(part, None, None, weight, bias, True, 0.0, EPS) for part in x.chunk(groups)])


def _activate(x: Tensor, act: str, slope: float, slopes: list[Tensor]) -> Tensor:
    functions = {"mish": F.mish, "swish": F.silu, "relu": F.relu, "linear": lambda x: x * 1}
    functions |= {"leaky": lambda x: F.leaky_relu(x, slope), "prelu": lambda x: F.prelu(x, slopes[0])}
    return functions[act](x)


def _merge(inputs: list[Tensor], kind: str, factors: list[Tensor]) -> Tensor:
    channels = inputs[0].shape[1]
    fill = -torch.inf if kind == "max" else 0.0
    fitted = [F.pad(x[:, :channels], (0, 0, 0, 0, 0, max(0, channels - x.shape[1])), value=fill) for x in inputs]
    if kind == "max":
        return torch.stack(fitted).amax(0)
    if factors:
        fitted = [x * factor[:, None, None] for x, factor in zip(fitted, factors, strict=True)]
    return torch.stack(fitted).sum(0)
