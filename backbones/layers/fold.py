"""Folding of one batch normalization into the convolution or matrix before it."""

from typing import Any

import torch
from torch import Tensor, nn

PLAIN_NORMS: set[type[nn.Module]] = {nn.BatchNorm1d, nn.BatchNorm2d}
"""Classes that are folded; `backbones.layers.batch_norm` adds its own. Other subclasses are not: that of timm holds an
activation."""


def fold_norm(weight: Tensor, bias: Tensor | None, norm: Any) -> tuple[Tensor, Tensor]:
    """Return the weight and bias of one layer that replaces a layer and its batch normalization.

    Shape:
        weight (out, ...), bias (out,) or None -> the same two
    """
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    start = torch.zeros_like(scale) if bias is None else bias.double()
    shift = norm.bias.double() + (start - norm.running_mean.double()) * scale
    factor = scale.reshape(-1, *[1] * (weight.dim() - 1))
    return (weight.double() * factor).to(weight.dtype), shift.to(weight.dtype)


@torch.no_grad()
def fold_unit(unit: Any) -> None:
    """Fold a plain batch normalization ``unit.bn`` into ``unit.conv`` or ``unit.fc`` in place; leave others alone."""
    layer = getattr(unit, "conv", None) or getattr(unit, "fc", None)
    if type(getattr(unit, "bn", None)) not in PLAIN_NORMS or not isinstance(layer, nn.Conv2d | nn.Linear):
        return
    weight, bias = fold_norm(layer.weight, layer.bias, unit.bn)
    layer.weight.copy_(weight)
    layer.bias = nn.Parameter(bias)
    unit.bn = nn.Identity()
