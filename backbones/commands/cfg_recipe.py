"""The ``[net]`` section of a cfg as a recipe."""

from typing import Any

import yaml

from backbones.darknet.cfg import Cfg, Section, read_cfg
from backbones.darknet.plan import plan

_CARRIED = (
    "batch", "subdivisions", "learning_rate", "momentum", "decay", "max_batches", "burn_in", "power", "policy",
    "height", "width", "channels", "flip", "aspect", "cutmix", "mosaic", "label_smooth_eps",
)  # fmt: skip
_LEFT_OUT = ("min_crop", "max_crop", "angle", "hue", "saturation", "exposure", "blur")
"""Options of the augmentation that a recipe does not have; the text says so."""
_HARMLESS = (
    "optimized_memory", "workspace_size_limit_mb", "use_cuda_graph", "show_receptive_field", "max_chart_loss",
    "augment_speed",
)  # fmt: skip
"""Options that change nothing of what is computed. Any option not named here must have its default."""


def recipe_text(path: str) -> str:
    """Return the recipe that trains the network of a cfg as its ``[net]`` section says, as YAML.

    Raises:
        UserError: the cfg is wrong, or asks for a training that no recipe describes; the message names the line.
    """
    cfg = read_cfg(path)
    plan(cfg)
    left = [f"{option}={value}" for option, value in cfg.net.values.items() if option in _LEFT_OUT]
    notes = [f"# From the [net] section of {path}."]
    if left:
        notes.append(f"# Not carried over, the random resized crop stands in for them: {', '.join(left)}.")
    return "\n".join(notes) + "\n" + yaml.safe_dump({"model": path, **recipe_options(cfg)}, sort_keys=False)


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
        "preprocess": {"crop_pct": 1.0, "interpolation": "bilinear", "mean": [0.0] * 3, "std": [1.0] * 3},
        "augment": _augment(net),
        "mixing": _mixing(net),
        "optim": {
            "momentum": net["momentum"],
            "weight_decay": net["decay"],
            "power": net["power"],
            "burn_in": net["burn_in"],
            "bn_momentum": 0.01,
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
    for option in net.values.keys() - {*_CARRIED, *_LEFT_OUT, *_HARMLESS}:
        if net[option] != Section("net")[option]:
            raise net.error(option, "has no counterpart in a recipe")


def _augment(net: Section) -> dict[str, Any]:
    aspect = net["aspect"]
    low, high = sorted((aspect, 1 / aspect))
    return {"ratio": [low, high], "hflip": 0.5 * net["flip"]}


def _mixing(net: Section) -> dict[str, Any]:
    mixed = bool(net["mosaic"] or net["cutmix"])
    return {
        "mosaic": bool(net["mosaic"]),
        "cutmix": bool(net["cutmix"]),
        "prob": 0.5 if mixed else 0.0,
        "smoothing": net["label_smooth_eps"],
    }


def _fusion_update(cfg: Cfg) -> dict[str, Any]:
    """Return darknet's rule for fusion weights where shortcuts, each as the cfg says, are held back during burn-in."""
    is_held = any(section["burnin_update"] for section in cfg.layers if section.kind == "shortcut")
    return {"fusion_update": "darknet"} if is_held else {}
