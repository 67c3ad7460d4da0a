"""Networks as data. The modules that build them need torch, and are imported when they are first used."""

import importlib
from typing import TYPE_CHECKING, Any

from backbones.models import csdarknet53, csresnext50
from backbones.models.spec import Backbone, Block, DropBlock, Fusion, Stage, Stem
from backbones.models.variants import VARIANTS, Variant, canonical_name

if TYPE_CHECKING:
    from backbones.models.batch_norm import set_batch_norm
    from backbones.models.cspnet import CspBackbone

__all__ = [
    "VARIANTS",
    "Backbone",
    "Block",
    "CspBackbone",
    "DropBlock",
    "Fusion",
    "Stage",
    "Stem",
    "Variant",
    "canonical_name",
    "csdarknet53",
    "csresnext50",
    "set_batch_norm",
]

_BUILDERS = {"CspBackbone": "backbones.models.cspnet", "set_batch_norm": "backbones.models.batch_norm"}
"""Name of this package that needs torch -> module that defines it."""


def __getattr__(name: str) -> Any:
    """Return a name that needs torch."""
    if name not in _BUILDERS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_BUILDERS[name]), name)
