"""Activations and their derivatives as functions of a map, for the operators that recompute."""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Pointwise(NamedTuple):
    """Activation as plain values, so that it can be an argument of an operator."""

    name: str
    """``linear``, ``relu``, ``leaky``, ``mish``, ``swish`` or ``prelu``."""
    slope: float = 0.0
    """Slope of ``leaky`` below zero."""
    slopes: Tensor | None = None
    """Learned slopes of ``prelu``, (1,) or (C,)."""


LINEAR = Pointwise("linear")


def as_pointwise(module: nn.Module) -> Pointwise | None:
    """Return the activation that a module computes; None for a module that the operators do not know."""
    kind = type(module)
    if kind is nn.LeakyReLU:
        return Pointwise("leaky", slope=module.negative_slope)  # pyright: ignore[reportArgumentType]
    if kind is nn.PReLU:
        return Pointwise("prelu", slopes=module.weight)  # pyright: ignore[reportArgumentType]
    return Pointwise(_NAMES[kind]) if kind in _NAMES else None


def activate(x: Tensor, act: Pointwise) -> Tensor:
    """Return the activation of ``x``, which may be overwritten.

    Shape:
        (N, C, H, W) -> the same
    """
    return _FORWARD[act.name](x, act)


def differentiate(gradient: Tensor, x: Tensor, act: Pointwise) -> Tensor:
    """Return the gradient of the input ``x`` of an activation.

    Shape:
        gradient (N, C, H, W), x the same -> the same
    """
    return _BACKWARD[act.name](gradient, x, act)


def differentiate_slopes(gradient: Tensor, x: Tensor) -> Tensor:
    """Return the gradient of a slope of ``prelu`` for each channel.

    Shape:
        gradient (N, C, H, W), x the same -> (C,)
    """
    return sum_cells(torch.where(x > 0, torch.zeros_like(x), gradient * x))


def sum_cells(x: Tensor) -> Tensor:
    """Return the sum of each channel, in single precision for maps of half precision.

    Shape:
        (N, C, H, W) -> (C,)
    """
    return x.sum((0, 2, 3), dtype=torch.promote_types(x.dtype, torch.float32))


def _negative_slopes(x: Tensor, act: Pointwise) -> Tensor:
    assert act.slopes is not None
    return act.slopes.to(x.dtype)[:, None, None]


_NAMES: dict[type[nn.Module], str] = {nn.Identity: "linear", nn.ReLU: "relu", nn.Mish: "mish", nn.SiLU: "swish"}

_FORWARD: dict[str, Callable[[Tensor, Pointwise], Tensor]] = {
    "linear": lambda x, _act: x,
    "relu": lambda x, _act: F.relu(x, inplace=True),
    "leaky": lambda x, act: F.leaky_relu(x, act.slope, inplace=True),
    "mish": lambda x, _act: F.mish(x, inplace=True),
    "swish": lambda x, _act: F.silu(x, inplace=True),
    "prelu": lambda x, act: torch.where(x > 0, x, x * _negative_slopes(x, act)),
}

_BACKWARD: dict[str, Callable[[Tensor, Tensor, Pointwise], Tensor]] = {
    "linear": lambda gradient, _x, _act: gradient,
    "relu": lambda gradient, x, _act: torch.ops.aten.threshold_backward(gradient, x, 0),
    "leaky": lambda gradient, x, act: torch.ops.aten.leaky_relu_backward(gradient, x, act.slope, False),
    "mish": lambda gradient, x, _act: torch.ops.aten.mish_backward(gradient, x),
    "swish": lambda gradient, x, _act: torch.ops.aten.silu_backward(gradient, x),
    "prelu": lambda gradient, x, act: torch.where(x > 0, gradient, gradient * _negative_slopes(x, act)),
}
