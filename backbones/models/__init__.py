"""Networks as data; importing this package registers every backbone with timm."""

from backbones.models import csdarknet53, csresnext50
from backbones.models.batch_norm import set_batch_norm
from backbones.models.cspnet import CspBackbone
from backbones.models.registry import VARIANTS, Variant, canonical_name
from backbones.models.spec import Backbone, Block, DropBlock, Fusion, Stage, Stem

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
