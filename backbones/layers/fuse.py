"""Folding for inference: batch normalization into the convolution before it, fusion weights into their shares."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from backbones.layers.shortcut import WeightedShortcut


@torch.no_grad()
def fuse(model: nn.Module) -> nn.Module:
    """Return a copy of ``model`` for inference without batch normalization and without normalized fusion weights.

    The copy computes the same up to rounding, faster. It is in evaluation mode and cannot be trained on as the
    original: its statistics are gone. Folding is done in float64.

    Args:
        model: one of ours or from a cfg. In any other network a convolution or linear layer is folded where its unit
            has it as ``conv`` or ``fc`` and a plain batch normalization as ``bn``; the rest stays as it is.

    Shape:
        that of ``model``
    """
    fused = copy.deepcopy(model).eval()
    for module in list(fused.modules()):
        if isinstance(module, WeightedShortcut):
            fold_shares(module)
        elif type(getattr(module, "bn", None)) in (
            nn.BatchNorm1d,
            nn.BatchNorm2d,
        ):  # timm's subclass holds an activation
            _fold_unit(module)
    return fused


@torch.no_grad()
def fold_shares(shortcut: WeightedShortcut) -> None:
    """Replace raw fusion weights by their shares, in place; the normalization is then ``none``."""
    shares = shortcut.effective_weights()
    if shortcut.weight is not None and shares is not None:
        shortcut.weight.copy_(shares)
        shortcut.normalization = "none"
        shortcut.fusion_gradient = "true"


def folded(weight: Tensor, bias: Tensor | None, norm: Any) -> tuple[Tensor, Tensor]:
    """Return the weight and bias that do what a layer and the batch normalization behind it do.

    Shape:
        weight (out, ...), bias (out,) or None -> the same two
    """
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    start = torch.zeros_like(scale) if bias is None else bias.double()
    shift = norm.bias.double() + (start - norm.running_mean.double()) * scale
    rows = scale.reshape(-1, *[1] * (weight.dim() - 1))
    return (weight.double() * rows).to(weight.dtype), shift.to(weight.dtype)


def _fold_unit(unit: Any) -> None:
    """Fold ``unit.bn`` into ``unit.conv`` or ``unit.fc``."""
    layer = getattr(unit, "conv", None) or getattr(unit, "fc", None)
    if not isinstance(layer, nn.Conv2d | nn.Linear):
        return
    weight, bias = folded(layer.weight, layer.bias, unit.bn)
    layer.weight.copy_(weight)
    layer.bias = nn.Parameter(bias)
    unit.bn = nn.Identity()
