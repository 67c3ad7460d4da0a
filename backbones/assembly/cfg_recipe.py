"""The ``[net]`` section of a cfg as a recipe."""

from typing import Any

import yaml

from backbones.darknet.cfg import Cfg, Section, read_cfg
from backbones.darknet.shapes import infer_layers

_CONVERTED = (
    "batch", "subdivisions", "learning_rate", "momentum", "decay", "max_batches", "burn_in", "power", "policy",
    "height", "width", "channels", "flip", "min_crop", "max_crop", "aspect", "angle", "hue", "saturation", "exposure",
    "mixup", "cutmix", "mosaic", "blur", "label_smooth_eps",
)  # fmt: skip
_MIXUP_KINDS = {1: ("mixup",), 2: ("cutmix",), 3: ("mosaic",), 4: ("mosaic", "cutmix")}
"""Value of mixup= -> kinds of mixing; without effect where cutmix=1 or mosaic=1 is set."""
_DEFAULT_BLUR = 15
"""Side in pixels of the blur of blur=1."""
_MIXED_SHARE = 0.5
"""Share of images that darknet mixes."""
_BN_MOMENTUM = 0.01
"""Momentum of BatchNorm in darknet, which has no option for it."""
_HARMLESS = (
    "optimized_memory", "workspace_size_limit_mb", "use_cuda_graph", "show_receptive_field", "max_chart_loss",
    "augment_speed",
)  # fmt: skip
"""Options without effect on the result. Any option that is not named here must have its default."""


def recipe_text(path: str) -> str:
    """Return the recipe, as YAML, that trains the network of a cfg as its ``[net]`` section says.

    Raises:
        UserError: the cfg is wrong, or its training has no recipe. The message names the line.
    """
    cfg = read_cfg(path)
    infer_layers(cfg)
    options = yaml.safe_dump({"model": path, **recipe_options(cfg)}, sort_keys=False)
    return f"# From the [net] section of {path}.\n{options}"


def recipe_options(cfg: Cfg) -> dict[str, Any]:
    """Return the options of a recipe as nested dictionaries. Errors as for `recipe_text`."""
    net = cfg.net
    _require_known(net)
    length = {"steps": net["max_batches"]} if net["max_batches"] else {}
    return {
        **length,
        "batch_size": net["batch"],
        "grad_accum_steps": net["subdivisions"],
        "lr": net["learning_rate"],
        "img_size": net["width"],
        "preprocess": {"protocol": "darknet", "crop_pct": 1.0, "mean": [0.0] * 3, "std": [1.0] * 3},
        "augment": _augment(net),
        "mixing": _mixing(net),
        "optim": {
            "momentum": net["momentum"],
            "weight_decay": net["decay"],
            "power": net["power"],
            "burn_in": net["burn_in"],
            "bn_momentum": _BN_MOMENTUM,
            **_fusion_update(cfg),
        },
    }


def _require_known(net: Section) -> None:
    if net["policy"] != "poly":
        raise net.error("policy", "has no recipe: only poly has one")
    if net["width"] != net["height"]:
        raise net.error("width", f"is not the height {net['height']}: a recipe has square images")
    if net["channels"] != 3:
        raise net.error("channels", "is not 3: a recipe has RGB images")
    for option in net.values.keys() - {*_CONVERTED, *_HARMLESS}:
        if net[option] != Section("net")[option]:
            raise net.error(option, "has no counterpart in a recipe")


def _augment(net: Section) -> dict[str, Any]:
    """Return darknet's warp and change of colours; unset crops are once and twice the size of the network."""
    size = net["width"]
    ranges = {
        "min_crop": net["min_crop"] or size,
        "max_crop": net["max_crop"] or 2 * size,
        "aspect": net["aspect"],
        "angle": net["angle"],
        "hue": net["hue"],
        "saturation": net["saturation"],
        "exposure": net["exposure"],
    }
    return {"augmentation": "darknet", "hflip": 0.5 * net["flip"], "darknet": ranges}


def _mixing(net: Section) -> dict[str, Any]:
    own = tuple(kind for kind in ("mosaic", "cutmix") if net[kind])
    kinds = own or _MIXUP_KINDS.get(net["mixup"], ())
    return {
        **{kind: kind in kinds for kind in ("mosaic", "cutmix", "mixup")},
        "prob": _MIXED_SHARE if kinds else 0.0,
        "blur": _blur(net["blur"]),
        "smoothing": net["label_smooth_eps"],
    }


def _blur(blur: int) -> int:
    """Return the side of the blur in pixels, which is odd."""
    if blur <= 1:
        return blur * _DEFAULT_BLUR
    return blur // 2 * 2 + 1


def _fusion_update(cfg: Cfg) -> dict[str, Any]:
    """Return darknet's rule for fusion weights where a shortcut does not learn during burn-in (burnin_update=)."""
    is_held = any(section["burnin_update"] for section in cfg.layers if section.kind == "shortcut")
    return {"fusion_update": "darknet"} if is_held else {}
