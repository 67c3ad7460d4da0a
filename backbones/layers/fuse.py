"""Folding for inference: batch normalization goes into the convolution before it, fusion weights become shares."""

import copy

import torch
from torch import nn

from backbones.layers.fold import fold_unit
from backbones.layers.shortcut import WeightedShortcut


@torch.no_grad()
def fuse(model: nn.Module) -> nn.Module:
    """Return a copy of ``model`` for inference without batch normalization and without normalized fusion weights.

    The copy computes the same up to rounding, but faster. It is in evaluation mode. Training cannot go on with it as
    with the original, because its statistics are gone. Folding is done in float64.

    Args:
        model: one of our backbones, a network from a cfg, or any other network. In any other network only modules with
            a layer ``conv`` or ``fc`` and a plain batch normalization ``bn`` are folded.

    Shape:
        as for ``model``
    """
    fused = copy.deepcopy(model).eval()
    for module in list(fused.modules()):
        if isinstance(module, WeightedShortcut):
            module.reparameterize()
        fold_unit(module)
    return fused
