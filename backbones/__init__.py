"""Backbones of darknet issue #4662 for torch: importing this package registers every one with timm.

It imports neither torch nor timm, which take seconds: timm gets the backbones when it is imported, before or after.
"""

import fnmatch
from typing import TYPE_CHECKING, Any

from backbones.errors import UserError
from backbones.model_names import ELSEWHERE, architecture_of, describe_unknown
from backbones.models import VARIANTS, canonical_name
from backbones.timm_import import prepare_timm

if TYPE_CHECKING:
    from torch import nn

__all__ = ["canonical_name", "create_model", "list_models"]

prepare_timm()


def create_model(name: str, **kwargs: Any) -> "nn.Module":
    """Build a model by name: one of `list_models`, or any model of timm.

    Args:
        name: e.g. ``csresnext50_ws_mi2``, ``resnet50``, ``resnet50.a1_in1k``,
            ``hf-hub:timm/resnet50.a1_in1k``. Names of the thread, such as ``csresnext50-ws-mi2``, will do.
        **kwargs: as for ``timm.create_model``: ``num_classes``, ``in_chans``, ``features_only``, ... For our
            own models also the fields of their spec (`backbones.models.Backbone`), e.g. ``act="leaky"``, those of
            its parts, e.g. ``fusion_gradient="darknet"``, and ``depths``.

    Raises:
        UserError: nobody knows the name; the message suggests near ones. Nothing is asked over the network.
        TypeError: the model takes no such keyword.
    """
    import timm  # noqa: PLC0415  (it takes seconds, and names and specs are known without it)

    if name.startswith(ELSEWHERE):
        return timm.create_model(name, **kwargs)
    if not timm.is_model(architecture_of(name)):
        raise UserError(describe_unknown(name, timm.list_models()))
    return timm.create_model(canonical_name(name), **kwargs)


def list_models(pattern: str = "") -> list[str]:
    """List our backbones, or those whose name matches a shell pattern such as ``csresnext50*``."""
    return [name for name in VARIANTS if fnmatch.fnmatchcase(name, pattern or "*")]
