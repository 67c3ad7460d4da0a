"""Darknet's two kinds of file, .cfg and .weights: read and written. What needs torch is imported at its first use."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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

_MODULES = {
    "DarknetNetwork": "backbones.darknet.network",
    "WeightsHeader": "backbones.darknet.weights",
    "bflops": "backbones.darknet.summary",
    "class_order": "backbones.darknet.labels",
    "fuse": "backbones.layers.fuse",
    "load_cfg": "backbones.darknet.network",
    "load_weights": "backbones.darknet.weights",
    "save_cfg": "backbones.darknet.trace",
    "save_weights": "backbones.darknet.weights",
}
"""Name of this package -> module that defines it."""


def __getattr__(name: str) -> Any:
    """Return a name of `_MODULES`."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)
