"""The list of our backbones: each with its spec and its published figures, registered with timm by name."""

from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import partial
from typing import Any, Literal, get_args

from timm.models import FeatureDictNet, build_model_with_cfg, generate_default_cfgs, is_model, register_model
from torch import nn

from backbones.errors import require_choice
from backbones.models.cspnet import CspBackbone
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

default_cfgs: dict[str, Any] = {}
"""Default configurations; timm looks for this name in the module of an entry point that it registers."""


def register(
    name: str,
    spec: Backbone,
    *,
    parent: str | None = None,
    top1: float | None = None,
    top5: float | None = None,
    certainty: Certainty,
) -> None:
    """Add a backbone to `VARIANTS` and register it with timm, so that ``timm.create_model(name)`` builds it.

    Raises:
        ValueError: the name is taken by another backbone of this package, or a figure is impossible.
    """
    if name in VARIANTS:
        raise ValueError(f"{name} is registered already")
    VARIANTS[name] = Variant(name, spec, parent, top1, top5, certainty)
    default_cfgs.update(generate_default_cfgs({name: _describe_input()}))
    register_model(_create_entry_point(VARIANTS[name]))


def canonical_name(name: str) -> str:
    """Return our name for a name that the thread used.

    The thread has ``-``, ``_`` or nothing between the words, with or without ``omega``. Every other name is returned
    unchanged, and so is every name that timm knows.
    """
    if is_model(name):
        return name
    ours = {_normalize(known): known for known in VARIANTS}
    return ours.get(_normalize(name), name)


def _normalize(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "").replace("omega", "")


def _create_entry_point(variant: Variant) -> Callable[..., nn.Module]:
    name, default = variant.name, variant.spec

    def create(pretrained: bool = False, **kwargs: Any) -> nn.Module:  # noqa: FBT001  (timm's signature)
        spec, options = override(default, kwargs)
        options["feature_cfg"] = _configure_features(spec, options)
        return build_model_with_cfg(partial(CspBackbone, spec), name, pretrained, **options)

    create.__name__ = create.__qualname__ = name
    create.__doc__ = (
        f"Build {name}; keywords may replace the fields of its spec.\n\n"
        f"How sure we are that this is what was trained: {variant.certainty}; docs/variants.md gives the evidence."
    )
    return create


def _configure_features(spec: Backbone, options: dict[str, Any]) -> dict[str, Any]:
    """Remove ``feature_cls`` and ``feature_cfg`` from ``options`` and return timm's options for ``features_only``.

    timm's ``list`` and ``dict`` run modules in a row, each on the output of the one before. A stage with an input
    pyramid has a second input; for such a network ``list`` is the ``getter``, which returns the same list.
    """
    config = {"feature_cls": "getter", **(options.pop("feature_cfg", None) or {})}
    if options.get("features_only") and "feature_cls" in options:
        config["feature_cls"] = options.pop("feature_cls")
    wrapper = config["feature_cls"]
    if isinstance(wrapper, str):
        require_choice("feature_cls", wrapper, ("getter", "list", "dict", "hook", "fx"))
    in_a_row = wrapper in ("list", "dict") or (isinstance(wrapper, type) and issubclass(wrapper, FeatureDictNet))
    if not in_a_row:
        return config
    if spec.pyramid == "none":
        return {"flatten_sequential": True, **config}
    if wrapper == "list":
        return {**config, "feature_cls": "getter"}
    raise TypeError(
        f"feature_cls={wrapper!r} does not work with pyramid={spec.pyramid!r}, whose stages have a second input: "
        "choose getter, list, hook or fx"
    )


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


def _describe_input() -> dict[str, Any]:
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
