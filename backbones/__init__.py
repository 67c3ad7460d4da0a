"""Backbones of darknet issue #4662 for torch: importing this package registers every one with timm."""

import fnmatch
from typing import Any

import timm
from torch import nn

from backbones.errors import UserError, did_you_mean
from backbones.models import VARIANTS, canonical_name

__all__ = ["canonical_name", "create_model", "list_models"]

_ELSEWHERE = ("hf-hub:", "hf_hub:", "local-dir:")
"""Prefixes of names that only timm can resolve, over the network or from a folder."""


def create_model(name: str, **kwargs: Any) -> nn.Module:
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
    if not name.startswith(_ELSEWHERE):
        name = canonical_name(name)
        _require_known(name)
    return timm.create_model(name, **kwargs)


def list_models(pattern: str = "") -> list[str]:
    """List our backbones, or those whose name matches a shell pattern such as ``csresnext50*``."""
    return [name for name in VARIANTS if fnmatch.fnmatchcase(name, pattern or "*")]


def _require_known(name: str) -> None:
    architecture = name.split(".", 1)[0]
    if not timm.is_model(architecture):
        raise UserError(f"unknown model {name!r}.{did_you_mean(architecture, timm.list_models())}")
