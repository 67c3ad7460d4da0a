"""Darknet's two kinds of file, .cfg and .weights: read and written."""

from backbones.darknet.labels import class_order
from backbones.darknet.network import DarknetNetwork, load_cfg
from backbones.darknet.summary import bflops
from backbones.darknet.trace import save_cfg
from backbones.darknet.weights import WeightsHeader, load_weights, save_weights
from backbones.layers.fuse import fuse

__all__ = [
    "DarknetNetwork",
    "WeightsHeader",
    "bflops",
    "class_order",
    "fuse",
    "load_cfg",
    "load_weights",
    "save_cfg",
    "save_weights",
]
