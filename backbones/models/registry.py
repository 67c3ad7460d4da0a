"""The list of our backbones: each spec with its published figures, made known to timm under its name."""

from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import partial
from typing import Any, Literal, get_args

from timm.models import build_model_with_cfg, generate_default_cfgs, is_model, register_model
from torch import nn

from backbones.layers.choice import require_choice
from backbones.models.cspnet import CspBackbone
from backbones.models.spec import Backbone, with_depths

Certainty = Literal["exact", "high", "medium", "medium-low", "low"]


@dataclass(frozen=True)
class Variant:
    """A backbone of the thread: its definition, where it comes from and what was reported for it."""

    name: str
    """Name in timm's registry and ours."""
    spec: Backbone
    """Its definition."""
    parent: str | None
    """The backbone it was made from."""
    top1: float | None
    """Top-1 accuracy in percent that the thread reports at 256x256; None where it reports none."""
    top5: float | None
    """Top-5 accuracy in percent."""
    certainty: Certainty
    """How sure we are that the definition is the one that was trained; ``docs/variants.md`` gives the reasons."""

    def __post_init__(self) -> None:
        """Refuse an unknown certainty and figures that are not percentages."""
        require_choice("certainty", self.certainty, get_args(Certainty))
        if self.top1 is None and self.top5 is None:
            return
        if self.top1 is None or self.top5 is None or not 0 <= self.top1 <= self.top5 <= 100:
            raise ValueError(f"{self.name}: top1={self.top1}, top5={self.top5} must satisfy 0 <= top1 <= top5 <= 100")


VARIANTS: dict[str, Variant] = {}
"""Every backbone of this package by name, in the order of registration."""

default_cfgs: dict[str, Any] = {}
"""timm looks for this name beside an entry point when it registers it."""


def register(
    name: str,
    spec: Backbone,
    *,
    parent: str | None = None,
    top1: float | None = None,
    top5: float | None = None,
    certainty: Certainty,
) -> None:
    """List a backbone as a `Variant` and make it known to timm, so that ``timm.create_model(name)`` builds it.

    Raises:
        ValueError: the name is taken by another backbone of this package, or a figure cannot be.
    """
    if name in VARIANTS:
        raise ValueError(f"{name} is registered already")
    VARIANTS[name] = Variant(name, spec, parent, top1, top5, certainty)
    default_cfgs.update(generate_default_cfgs({name: _pretrained_cfg()}))
    register_model(_entry_point(VARIANTS[name]))


def canonical_name(name: str) -> str:
    """Return our name for one that the thread used: ``-`` or ``_`` or nothing between the words, with ``omega`` or not.

    Every other name, and every name that timm knows, comes back as it is.
    """
    if is_model(name):
        return name
    ours = {_letters(known): known for known in VARIANTS}
    return ours.get(_letters(name), name)


def _letters(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "").replace("omega", "")


def _entry_point(variant: Variant) -> Callable[..., nn.Module]:
    name, default = variant.name, variant.spec

    def create(pretrained: bool = False, **kwargs: Any) -> nn.Module:  # noqa: FBT001  (timm's signature)
        spec, options = override(default, kwargs)
        return build_model_with_cfg(
            partial(CspBackbone, spec),
            name,
            pretrained,
            feature_cfg={"feature_cls": "getter"},
            **options,
        )

    create.__name__ = create.__qualname__ = name
    create.__doc__ = (
        f"Build {name}; keywords may replace the fields of its spec.\n\n"
        f"How sure we are that this is what was trained: {variant.certainty}; docs/variants.md gives the evidence."
    )
    return create


def override(spec: Backbone, options: dict[str, Any]) -> tuple[Backbone, dict[str, Any]]:
    """Replace what ``options`` names in ``spec``; return the new spec and the options left over.

    A name is a field of the spec (``act``), a part and its field (``fusion_gradient``, ``drop_block_stages``), or
    ``depths``, the number of blocks of each stage.
    """
    rest = {name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}
    spec = replace(spec, **_taken(rest, spec))
    for part in fields(spec):
        value = getattr(spec, part.name)
        if is_dataclass(value) and (changes := _taken(rest, value, prefix=f"{part.name}_")):
            spec = replace(spec, **{part.name: replace(value, **changes)})  # pyright: ignore[reportArgumentType]
    return (with_depths(spec, rest.pop("depths")) if "depths" in rest else spec), rest


def _taken(options: dict[str, Any], part: Any, prefix: str = "") -> dict[str, Any]:
    """Take out of ``options`` what names a field of ``part``."""
    names = [field.name for field in fields(part)]
    return {name: options.pop(prefix + name) for name in names if prefix + name in options}


def _pretrained_cfg() -> dict[str, Any]:
    """Describe darknet's input for timm: RGB in [0, 1], shorter side to 256, centre crop."""
    return {
        "input_size": (3, 256, 256),
        "pool_size": (8, 8),
        "crop_pct": 1.0,
        "interpolation": "bilinear",
        "mean": (0.0, 0.0, 0.0),
        "std": (1.0, 1.0, 1.0),
        "first_conv": "stem.conv.conv",
        "classifier": "head.fc",
    }
