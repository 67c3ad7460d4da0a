"""Names that parts of a module had in older versions: their weights still load."""

from collections.abc import MutableMapping
from functools import partial
from typing import Any

from torch import nn


def accept_old_name(module: nn.Module, old: str, new: str) -> None:
    """Let ``module.load_state_dict`` also take weights that call the part ``new`` by its old name."""
    module.register_load_state_dict_pre_hook(partial(_rename_part, old=old, new=new))


def _rename_part(
    _module: nn.Module, weights: MutableMapping[str, Any], prefix: str, *_arguments: Any, old: str, new: str
) -> None:
    start = f"{prefix}{old}."
    for name in [name for name in weights if name.startswith(start)]:
        weights[f"{prefix}{new}.{name.removeprefix(start)}"] = weights.pop(name)
