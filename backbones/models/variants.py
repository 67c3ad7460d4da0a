"""The list of our backbones: each with its spec and its published figures. It is read without torch and timm."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Literal, get_args

from backbones.errors import require_choice
from backbones.models.spec import Backbone, with_depths

Certainty = Literal["exact", "high", "medium", "medium-low", "low"]


@dataclass(frozen=True)
class Variant:
    """Backbone of the thread: its spec, its parent and its published figures."""

    name: str
    """Name in timm's registry and in ours."""
    spec: Backbone
    """Definition of the network."""
    parent: str | None
    """Name of the backbone that it was made from; None for the first of a family."""
    top1: float | None
    """Top-1 accuracy in percent that the thread reports at 256x256; None if it reports none."""
    top5: float | None
    """Top-5 accuracy in percent."""
    certainty: Certainty
    """Confidence that the definition is the one that was trained; ``docs/variants.md`` gives the reasons."""

    def __post_init__(self) -> None:
        """Refuse an unknown certainty and figures that are not percentages."""
        require_choice("certainty", self.certainty, get_args(Certainty))
        if self.top1 is None and self.top5 is None:
            return
        if self.top1 is None or self.top5 is None or not 0 <= self.top1 <= self.top5 <= 100:
            raise ValueError(f"{self.name}: top1={self.top1}, top5={self.top5} must satisfy 0 <= top1 <= top5 <= 100")


VARIANTS: dict[str, Variant] = {}
"""Every backbone of this package by name, in the order of registration."""

ON_REGISTER: list[Callable[[Variant], None]] = []
"""Functions that are told of every backbone that is added from now on."""


def register(
    name: str,
    spec: Backbone,
    *,
    parent: str | None = None,
    top1: float | None = None,
    top5: float | None = None,
    certainty: Certainty,
) -> None:
    """Add a backbone to `VARIANTS`, so that ``timm.create_model(name)`` builds it.

    timm gets it at once, or when it is imported (`backbones.timm_import`).

    Raises:
        ValueError: the name is taken by another backbone of this package, or a figure is impossible.
    """
    if name in VARIANTS:
        raise ValueError(f"{name} is registered already")
    VARIANTS[name] = Variant(name, spec, parent, top1, top5, certainty)
    for tell in ON_REGISTER:
        tell(VARIANTS[name])


def canonical_name(name: str) -> str:
    """Return our name for a name that the thread used.

    The thread has ``-``, ``_`` or nothing between the words, with or without ``omega``. Every other name is returned
    unchanged, and so is every name that timm knows. timm is not imported for this: none of its own names is like ours.
    """
    timm = sys.modules.get("timm.models")
    if name in VARIANTS or (timm is not None and timm.is_model(name)):
        return name
    ours = {_normalize(known): known for known in VARIANTS}
    return ours.get(_normalize(name), name)


def _normalize(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "").replace("omega", "")


def override(spec: Backbone, options: dict[str, Any]) -> tuple[Backbone, dict[str, Any]]:
    """Return ``spec`` with the fields that ``options`` names replaced, and the options left over.

    A name is a field of the spec (``act``), a part and its field (``fusion_gradient``, ``drop_block_stages``), or
    ``depths``, the number of blocks of each stage.
    """
    rest = {name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}
    spec = replace(spec, **_pop_fields(rest, spec))
    for part in fields(spec):
        value = getattr(spec, part.name)
        if is_dataclass(value) and (changes := _pop_fields(rest, value, prefix=f"{part.name}_")):
            spec = replace(spec, **{part.name: replace(value, **changes)})  # pyright: ignore[reportArgumentType]
    if "depths" in rest:
        spec = with_depths(spec, rest.pop("depths"))
    return spec, rest


def _pop_fields(options: dict[str, Any], part: Any, prefix: str = "") -> dict[str, Any]:
    """Remove the fields of ``part`` from ``options`` and return them."""
    names = [field.name for field in fields(part)]
    return {name: options.pop(prefix + name) for name in names if prefix + name in options}
