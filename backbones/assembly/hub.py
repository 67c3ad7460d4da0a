"""The config.json beside a checkpoint's weights, with which timm builds the network and prepares its images."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from backbones.assembly.request import LOADING
from backbones.darknet.network import DarknetNetwork
from backbones.recipe import Preprocess, Protocol

KEPT = ("pool_size", "first_conv", "classifier")
"""Fields of timm's own configuration that depend on the architecture alone."""

CROP_MODES: dict[Protocol, str] = {"darknet": "center", "timm": "center", "full": "squash"}
"""Protocol -> timm's word. The counterpart of ``timm`` and ``full`` is exact; darknet's resize has none."""

LEFT_OUT = (*LOADING, "cache_dir", "pretrained_cfg", "pretrained_cfg_overlay", "device", "dtype")
"""Keyword arguments of timm.create_model that say where weights come from or go to, not what the network is."""


def describe_for_timm(
    network: nn.Module,
    *,
    classes: Sequence[str],
    img_size: int,
    preprocess: Preprocess,
    model_args: Mapping[str, Any],
) -> dict[str, Any] | None:
    """Return what ``config.json`` says, in the form of timm's folders on the Hugging Face hub.

    Args:
        network: the network.
        classes: names in the order of its outputs.
        img_size: height and width of its input in pixels.
        preprocess: preprocessing of its input.
        model_args: keyword arguments that it was built with.

    Returns:
        None for a network from a cfg, which timm cannot build.
    """
    known: Any = getattr(network, "pretrained_cfg", None)
    if isinstance(network, DarknetNetwork) or not known or not known.get("architecture"):
        return None
    arguments = {name: value for name, value in model_args.items() if name not in LEFT_OUT and value is not None}
    return {
        "architecture": known["architecture"],
        "num_classes": len(classes),
        "num_features": network.num_features,
        "label_names": list(classes),
        **({"model_args": arguments} if arguments else {}),
        "pretrained_cfg": _describe_input(known, arguments, img_size, preprocess) | {"num_classes": len(classes)},
    }


def _describe_input(
    known: Mapping[str, Any], arguments: Mapping[str, Any], img_size: int, preprocess: Preprocess
) -> dict[str, Any]:
    """Return the part that `timm.data.resolve_data_config` reads, with the facts about the architecture."""
    input_size = [arguments.get("in_chans", known["input_size"][0]), img_size, img_size]
    kept = {name: known.get(name) for name in KEPT}
    if input_size[1:] != list(known["input_size"][1:]):
        kept["pool_size"] = None
    return {
        "input_size": input_size,
        "fixed_input_size": known.get("fixed_input_size", False) and not arguments.get("dynamic_img_size"),
        "interpolation": preprocess.interpolation,
        "crop_pct": preprocess.crop_pct,
        "crop_mode": CROP_MODES[preprocess.protocol],
        "mean": list(preprocess.mean),
        "std": list(preprocess.std),
        **kept,
    }
