"""Names of weights in checkpoints of older versions."""

import re
from collections.abc import Mapping, MutableMapping
from typing import Any, TypeVar

from torch import nn

T = TypeVar("T")

_NEW_NAMES = {
    r"\b(stages\.\d+)\.fuse\.": r"\1.last_shortcut.",
    r"\b(top_down|bottom_up)\.(\d+)\.fuse\.": r"\1.\2.shortcut.",
}
"""Pattern of an old name -> the new one: the shortcut after the last block of a stage, and the sums of `BiFpn`."""


def current_names(weights: Mapping[str, T]) -> dict[str, T]:
    """Return ``weights`` under the names of this version, in the same order. Other names stay as they are."""
    return {_rename(name): value for name, value in weights.items()}


def accept_old_names(network: nn.Module) -> None:
    """Let ``network.load_state_dict`` also take weights under their old names."""
    network.register_load_state_dict_pre_hook(_rename_in_place)


def _rename(name: str) -> str:
    for old, new in _NEW_NAMES.items():
        name = re.sub(old, new, name)
    return name


def _rename_in_place(_network: nn.Module, weights: MutableMapping[str, Any], *_arguments: Any) -> None:
    renamed = current_names(weights)
    weights.clear()
    weights.update(renamed)
