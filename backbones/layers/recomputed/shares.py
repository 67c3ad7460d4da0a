"""Shares of all shortcuts of a network, computed together: a few kernels in place of about thirty for each shortcut."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from backbones.layers.recomputed.operators import register

EPSILON = 1e-4
"""Term added to the sum that normalizes the fusion weights, so the shares add up to slightly less than 1."""

_OPERATORS = torch.ops.backbones


def compute_shares(weights: Sequence[Tensor], normalization: str, floor: float, rule: str) -> list[Tensor]:
    """Return the shares of several shortcuts, with their gradient.

    Args:
        weights: raw fusion weights of each shortcut, (inputs, 1 or C).
        normalization: ``none``, ``relu``, ``softmax`` or ``sigmoid``, see `effective_weights`.
        floor: lower bound of the weights in ``relu``.
        rule: ``true`` for the gradient of the shares, ``darknet`` for the one of `with_darknet_gradient`.

    Shape:
        (inputs, 1 or C) for each shortcut -> the same
    """
    return list(_Shares.apply(normalization, floor, rule, *weights))  # type: ignore[arg-type]


def fusion_shares(weights: Sequence[Tensor], normalization: str, floor: float) -> list[Tensor]:
    """Return the shares of several shortcuts.

    Shape:
        (inputs, 1 or C) for each shortcut -> the same
    """
    return [_SHARES[normalization](weight, floor) for weight in weights]


def fusion_shares_backward(
    gradients: Sequence[Tensor], weights: Sequence[Tensor], normalization: str, floor: float, rule: str
) -> list[Tensor]:
    """Return the gradients of the raw weights of several shortcuts.

    Shape:
        gradients (inputs, 1 or C) for each shortcut, weights the same -> the same
    """
    derive = _GRADIENTS[rule, normalization]
    return [derive(gradient, weight, floor) for gradient, weight in zip(gradients, weights, strict=True)]


class _Shares(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, normalization: str, floor: float, rule: str, *weights: Tensor) -> tuple[Tensor, ...]:
        ctx.save_for_backward(*weights)
        ctx.options = (normalization, floor, rule)
        return tuple(_OPERATORS.fusion_shares(list(weights), normalization, floor))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        weights = list(ctx.saved_tensors)
        return None, None, None, *_OPERATORS.fusion_shares_backward(list(gradients), weights, *ctx.options)


def _divide_by_sum(raw: Tensor) -> Tensor:
    return raw / (EPSILON + raw.sum(0, keepdim=True))


def _softmax(weight: Tensor, _floor: float) -> Tensor:
    return _divide_by_sum(torch.exp(weight - weight.amax(0, keepdim=True)))


def _sigmoid(weight: Tensor, _floor: float) -> Tensor:
    return torch.sigmoid(weight) * (2 / weight.shape[0])


def _derive_softmax(gradient: Tensor, weight: Tensor, floor: float) -> Tensor:
    shares = _softmax(weight, floor)
    return shares * (gradient - (shares * gradient).sum(0, keepdim=True))


def _derive_relu(gradient: Tensor, weight: Tensor, floor: float) -> Tensor:
    raw = weight.clamp_min(floor)
    total = EPSILON + raw.sum(0, keepdim=True)
    of_raw = (gradient - (raw * gradient).sum(0, keepdim=True) / total) / total
    return of_raw * (weight > floor)  # at the floor none, as clamp_min has it


def _derive_sigmoid(gradient: Tensor, weight: Tensor, floor: float) -> Tensor:
    shares = _sigmoid(weight, floor)
    return gradient * shares * (1 - torch.sigmoid(weight))


_SHARES: dict[str, Callable[[Tensor, float], Tensor]] = {
    "none": lambda weight, _floor: weight.clone(),
    "relu": lambda weight, floor: _divide_by_sum(weight.clamp_min(floor)),
    "softmax": _softmax,
    "sigmoid": _sigmoid,
}

_GRADIENTS: dict[tuple[str, str], Callable[[Tensor, Tensor, float], Tensor]] = {
    ("true", "none"): lambda gradient, _weight, _floor: gradient.clone(),
    ("true", "relu"): _derive_relu,
    ("true", "softmax"): _derive_softmax,
    ("true", "sigmoid"): _derive_sigmoid,
    ("darknet", "none"): lambda gradient, _weight, _floor: gradient.clone(),
    ("darknet", "relu"): lambda gradient, weight, floor: gradient * _SHARES["relu"](weight, floor),
    ("darknet", "softmax"): lambda gradient, weight, floor: (
        gradient * (shares := _softmax(weight, floor)) * (1 - shares)
    ),
}


register(
    "fusion_shares",
    "(Tensor[] weights, str normalization, float floor) -> Tensor[]",
    fusion_shares,
    lambda weights, *_: [torch.empty_like(weight) for weight in weights],
)
register(
    "fusion_shares_backward",
    "(Tensor[] gradients, Tensor[] weights, str normalization, float floor, str rule) -> Tensor[]",
    fusion_shares_backward,
    lambda _gradients, weights, *_: [torch.empty_like(weight) for weight in weights],
)
