"""Rules that the choices of a layer must follow. They are apart from the layers, so that a spec needs no torch."""

from typing import get_args

from backbones.choices import DropBlockKind, FusionGradient, Normalization, WeightsType
from backbones.errors import require_choice


def require_fusion(weights_type: str, normalization: str, fusion_gradient: str = "true") -> None:
    """Raise `ValueError` unless the choices exist and fit together."""
    require_choice("weights_type", weights_type, get_args(WeightsType))
    require_choice("normalization", normalization, get_args(Normalization))
    require_choice("fusion_gradient", fusion_gradient, get_args(FusionGradient))
    if fusion_gradient == "darknet" and normalization == "sigmoid":
        raise ValueError("fusion_gradient='darknet' has no rule for normalization='sigmoid': choose 'true'")
    if weights_type == "none" and normalization != "none":
        raise ValueError(
            f"normalization={normalization!r} has nothing to normalize with weights_type='none': "
            "choose per_feature or per_channel, or normalization='none'"
        )


def require_drop_block(probability: float, block_size: int, kind: str) -> None:
    """Raise `ValueError` unless squares of this kind, size and probability can be dropped."""
    require_choice("drop_block.kind", kind, get_args(DropBlockKind))
    if not 0 <= probability < 1:
        raise ValueError(f"drop_block.probability={probability} must lie in [0, 1)")
    if block_size < 1:
        raise ValueError(f"drop_block.block_size={block_size} must be at least 1")
