"""Layers: tensors in, tensors out."""

from backbones.layers.activation import ActivationName, create_activation
from backbones.layers.asff import Asff, adaptive_sum
from backbones.layers.bifpn import BiFpn, StackedBiFpn
from backbones.layers.conv import ConvNormAct, darknet_uniform_
from backbones.layers.drop_block import DropBlock2d, DropBlockKind, drop_block_2d, set_drop_block_progress
from backbones.layers.elastic import Elastic, ElasticKind
from backbones.layers.input_pyramid import InputPyramid, PyramidKind, input_pyramid
from backbones.layers.levels import PerLevel
from backbones.layers.maxout import Maxout, maxout
from backbones.layers.panet import PaNet
from backbones.layers.pooling import DarknetMaxPool2d, LocalAvgPool2d, darknet_max_pool2d, local_avg_pool2d
from backbones.layers.reorg import (
    PaddedReorg3d,
    Reorg3d,
    inverse_reorg3d,
    padded_reorg3d,
    reorg,
    reorg3d,
    reversed_reorg3d,
)
from backbones.layers.rfb import Rfb
from backbones.layers.shortcut import (
    FusionGradient,
    Normalization,
    WeightedShortcut,
    WeightsType,
    effective_weights,
    fusion_weights,
    weighted_sum,
)
from backbones.layers.spp import Spp, spatial_pyramid_pool

__all__ = [
    "ActivationName",
    "Asff",
    "BiFpn",
    "ConvNormAct",
    "DarknetMaxPool2d",
    "DropBlock2d",
    "DropBlockKind",
    "Elastic",
    "ElasticKind",
    "FusionGradient",
    "InputPyramid",
    "LocalAvgPool2d",
    "Maxout",
    "Normalization",
    "PaNet",
    "PaddedReorg3d",
    "PerLevel",
    "PyramidKind",
    "Reorg3d",
    "Rfb",
    "Spp",
    "StackedBiFpn",
    "WeightedShortcut",
    "WeightsType",
    "adaptive_sum",
    "create_activation",
    "darknet_max_pool2d",
    "darknet_uniform_",
    "drop_block_2d",
    "effective_weights",
    "fusion_weights",
    "input_pyramid",
    "inverse_reorg3d",
    "local_avg_pool2d",
    "maxout",
    "padded_reorg3d",
    "reorg",
    "reorg3d",
    "reversed_reorg3d",
    "set_drop_block_progress",
    "spatial_pyramid_pool",
    "weighted_sum",
]
