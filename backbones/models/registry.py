"""Our backbones as models of timm: importing this module registers all of `VARIANTS`, and every later one."""

from collections.abc import Callable
from functools import partial
from typing import Any

from timm.models import FeatureDictNet, build_model_with_cfg, generate_default_cfgs, register_model
from torch import nn

from backbones.errors import require_choice
from backbones.models.spec import Backbone
from backbones.models.variants import ON_REGISTER, VARIANTS, Variant, override

default_cfgs: dict[str, Any] = {}
"""Default configurations; timm looks for this name in the module of an entry point that it registers."""


def offer_to_timm(variant: Variant) -> None:
    """Register a backbone with timm."""
    default_cfgs.update(generate_default_cfgs({variant.name: _describe_input()}))
    register_model(_create_entry_point(variant))


def _create_entry_point(variant: Variant) -> Callable[..., nn.Module]:
    name, default = variant.name, variant.spec

    def create(pretrained: bool = False, **kwargs: Any) -> nn.Module:  # noqa: FBT001  (timm's signature)
        from backbones.models.cspnet import CspBackbone  # noqa: PLC0415  (it needs timm, which may be importing us)

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


for _variant in VARIANTS.values():
    offer_to_timm(_variant)
ON_REGISTER.append(offer_to_timm)
