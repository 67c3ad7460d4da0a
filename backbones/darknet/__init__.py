"""Darknet's files, read and written: .cfg and .weights."""

from backbones.darknet.labels import class_order
from backbones.darknet.network import DarknetNetwork, load_cfg
from backbones.darknet.trace import save_cfg
from backbones.darknet.weights import Header, load_weights, save_weights
from backbones.layers.fuse import fuse

__all__ = [
    "DarknetNetwork",
    "Header",
    "class_order",
    "fuse",
    "load_cfg",
    "load_weights",
    "save_cfg",
    "save_weights",
]
