"""Layers: tensors in, tensors out."""

from backbones.layers.activation import ActivationName, create_activation
from backbones.layers.conv import ConvNormAct, darknet_uniform_
from backbones.layers.shortcut import (
    Normalization,
    WeightedShortcut,
    WeightsType,
    effective_weights,
    weighted_sum,
)

__all__ = [
    "ActivationName",
    "ConvNormAct",
    "Normalization",
    "WeightedShortcut",
    "WeightsType",
    "create_activation",
    "darknet_uniform_",
    "effective_weights",
    "weighted_sum",
]
