"""Every section and option that the cfg of a classifier may have: type, range and default."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from backbones.errors import did_you_mean

Value = int | float | str | tuple[int, ...] | tuple[float, ...] | None
MAX_INTEGER = 65_536
"""Limit of widths, sizes and strides, far above those of any real network."""

ACTIVATIONS = (
    "linear", "relu", "leaky", "mish", "swish", "logistic", "loggy", "tanh", "elu", "selu", "gelu", "relu6", "relie",
    "ramp", "hardtan", "hard_mish", "lhtan", "plse", "stair",
)  # fmt: skip
"""Activations that a cfg may name. Darknet takes an unknown name for relu; we refuse it."""


@dataclass(frozen=True)
class Option:
    """An option: how its value is read, and its default."""

    read: Callable[[str], Any]
    """Function that turns the text into a value. Its ``ValueError`` says what the value must be."""
    default: Value = None
    """Value where the cfg does not give one; None if that depends on other options."""
    required: bool = False
    """True when a section must have this option."""
    form: Literal["number", "list", "word"] = "number"
    """Form of the value. It decides whether darknet overlooks a comment behind the value."""
    unused: str = ""
    """Reason why a value other than the default has no effect here, for a note; empty where it has one."""


def integer(default: int | None, low: int = 1, high: int = MAX_INTEGER, *, required: bool = False) -> Option:
    """Describe a whole number in [low, high]."""
    return Option(lambda text: _require_within(_read_integer(text), low, high), default, required)


def real(default: float, low: float = 0.0, high: float = math.inf) -> Option:
    """Describe a finite number in [low, high]."""
    return Option(lambda text: _require_within(_read_number(text), low, high), default)


def flag(default: int = 0) -> Option:
    """Describe 0 or 1. Words are refused: darknet reads ``yes`` as 0."""
    return integer(default, 0, 1)


def word(default: str, *choices: str) -> Option:
    """Describe one of ``choices``."""
    return Option(lambda text: _require_choice(text, choices), default, form="word")


def layer_numbers() -> Option:
    """Describe layer numbers, for example ``-1,36``. They are always required."""
    return Option(_read_layer_numbers, required=True, form="list")


def reals() -> Option:
    """Describe numbers separated by commas."""
    return Option(lambda text: tuple(map(_read_number, text.rstrip(",").split(","))), form="list")


def only(value: int) -> Option:
    """Describe an option of darknet that is not supported here: only its default ``value`` is accepted."""
    return Option(lambda text: _require_value(_read_number(text), value), value)


def unused(default: float, reason: str) -> Option:
    """Describe a number that is accepted, but has no effect here; ``reason`` says why."""
    return Option(_read_number, default, unused=reason)


def refused(reason: str) -> Option:
    """Describe an option that a cfg must not have; ``reason`` says why."""
    return Option(lambda _text: _refuse(reason), form="word")


def _read_integer(text: str) -> int:
    if not re.fullmatch(r"[+-]?[0-9]{1,18}", text):
        raise ValueError("must be a whole number")
    return int(text)


def _read_number(text: str) -> float:
    read = float.fromhex if "0x" in text.lower() else float
    try:
        number = read(text if text.isascii() and "_" not in text else "")
    except (ValueError, OverflowError):
        raise ValueError("must be a number") from None
    if not math.isfinite(number):
        raise ValueError("must be finite")
    return number


def _read_layer_numbers(text: str) -> tuple[int, ...]:
    if text.endswith(","):
        raise ValueError("ends with a comma, behind which darknet reads layer 0")
    return tuple(map(_read_layer_number, text.split(",")))


def _read_layer_number(text: str) -> int:
    return _require_within(_read_integer(text), -MAX_INTEGER, MAX_INTEGER)


def _require_within(number: Any, low: float, high: float) -> Any:
    if not low <= number <= high:
        raise ValueError(f"must be at least {low}" if number < low else f"must be at most {high}")
    return number


def _require_choice(text: str, choices: tuple[str, ...]) -> str:
    if text not in choices:
        raise ValueError(f"is not one of {', '.join(choices)}.{did_you_mean(text, choices)}".rstrip("."))
    return text


def _require_value(number: float, value: int) -> int:
    if number != value:
        raise ValueError(f"is not supported here: leave it out or say {value}")
    return value


def _refuse(reason: str) -> None:
    raise ValueError(reason)


_UNSUPPORTED_IN_LAYERS = ("burnin_update", "dontload", "dontloadscales", "dynamic_minibatch")
_TRAINS_ALL = "every layer is trained with the recipe's learning rate"
_TRAINING_OF_LAYERS = {
    "learning_rate": unused(1, _TRAINS_ALL),
    **dict.fromkeys(("stopbackward", "onlyforward", "dont_update", "train_only_bn", "clip"), unused(0, _TRAINS_ALL)),
}
"""Options of a layer that change its training only."""
_UNSUPPORTED_IN_CONVOLUTIONS = (
    "cbn", "flipped", "binary", "xnor", "bin_output", "assisted_excitation", "share_index", "dot", "sway", "rotate",
    "stretch", "stretch_sway", "deform", "coordconv",
)  # fmt: skip
_POLICIES = ("constant", "poly", "step", "steps", "exp", "sig", "sigmoid", "random", "sgdr", "custom")
_TRAINING_FLAGS = (
    "adam", "grad_centr", "try_fix_nan", "dynamic_minibatch", "use_cuda_graph", "track", "attention", "unsupervised",
    "contrastive", "show_receptive_field",
)  # fmt: skip
_ANY_LAYER = {**_TRAINING_OF_LAYERS, **dict.fromkeys(_UNSUPPORTED_IN_LAYERS, only(0))}
_STRIDES = {"stride": integer(1), "stride_x": integer(None), "stride_y": integer(None)}
_POOL = {**_STRIDES, "size": integer(None, high=1024), "padding": integer(None, 0)}
_TRAINING = {
    **dict.fromkeys(_TRAINING_FLAGS, flag()),
    "batch": integer(1, high=10**6),
    "subdivisions": integer(1, high=10**6),
    "learning_rate": real(0.001),
    "learning_rate_min": real(0.00001),
    "momentum": real(0.9, 0, 1),
    "decay": real(0.0001),
    "max_batches": integer(0, 0, 10**9),
    "burn_in": integer(0, 0, 10**9),
    "power": real(4.0),
    "policy": word("constant", *_POLICIES),
    "step": integer(1, high=10**9),
    "steps": reals(),
    "scale": real(1.0),
    "scales": reals(),
    "gamma": real(1.0),
    "batches_per_cycle": integer(0, 0, 10**9),
    "batches_cycle_mult": integer(2, 0),
    "b1": real(0.9, 0, 1),
    "b2": real(0.999, 0, 1),
    "eps": real(1e-6),
    "ema_alpha": real(0.0, 0, 1),
    "loss_scale": real(1.0),
    "augment_speed": integer(2, 0),
    "optimized_memory": integer(0, 0),
    "workspace_size_limit_mb": integer(1024, 0),
    "time_steps": integer(1),
    "adversarial_lr": real(0.0),
    "weights_reject_freq": integer(0, 0),
    "sequential_subdivisions": integer(1),
    "init_sequential_subdivisions": integer(1),
    "max_chart_loss": real(20.0),
    "equidistant_point": integer(0, 0, 10**9),
    "badlabels_rejection_percentage": real(0.0),
    "num_sigmas_reject_badlabels": real(0.0),
    "seen": unused(0, "darknet takes the count from the weights file"),
}
_AUGMENTATION = {
    "min_crop": integer(None),
    "max_crop": integer(None),
    "flip": flag(1),
    "angle": real(0.0, 0, 360),
    "aspect": real(1.0),
    "hue": real(0.0),
    "saturation": real(1.0),
    "exposure": real(1.0),
    "blur": integer(0, 0),
    "gaussian_noise": integer(0, 0),
    "mixup": integer(0, 0, 4),
    "cutmix": flag(),
    "mosaic": flag(),
    "mosaic_bound": flag(),
    "label_smooth_eps": real(0.0, 0, 1),
    "letter_box": flag(),
    "resize_step": integer(32),
    "random": flag(),
}
_INPUT = {"height": integer(None, high=8192), "width": integer(None, high=8192), "channels": integer(3, high=1024)}

_RECIPE_COLOURS = "angles and colours are changed as the recipe says"

SECTIONS: dict[str, dict[str, Option]] = {
    "net": {
        "inputs": refused("is not supported here: give height, width and channels"),
        **{name: Option(option.read, option.default, required=True) for name, option in _INPUT.items()},
        **_TRAINING,
        **_AUGMENTATION,
    },
    "convolutional": {
        **_ANY_LAYER,
        **_STRIDES,
        "filters": integer(1),
        "size": integer(1, high=1024),
        "groups": integer(1),
        "dilation": integer(1),
        "pad": flag(),
        "padding": integer(0, 0, 1024),
        "batch_normalize": flag(),
        "activation": word("logistic", *ACTIVATIONS),
        "antialiasing": integer(0, 0, 2),
        **dict.fromkeys(_UNSUPPORTED_IN_CONVOLUTIONS, only(0)),
    },
    "maxpool": {
        **_ANY_LAYER,
        **_POOL,
        "maxpool_depth": flag(),
        "out_channels": integer(1),
        "antialiasing": integer(0, 0, 2),
    },
    "local_avgpool": {**_ANY_LAYER, **_POOL},
    "crop": {
        **_ANY_LAYER,
        "crop_height": integer(1, high=8192),
        "crop_width": integer(1, high=8192),
        "flip": flag(),
        "noadjust": flag(),
        "angle": unused(0, _RECIPE_COLOURS),
        "saturation": unused(1, _RECIPE_COLOURS),
        "exposure": unused(1, _RECIPE_COLOURS),
        "shift": unused(0, _RECIPE_COLOURS),
    },
    "avgpool": _ANY_LAYER,
    "route": {**_ANY_LAYER, "layers": layer_numbers(), "groups": integer(1), "group_id": integer(0, 0)},
    "shortcut": {
        **_ANY_LAYER,
        "burnin_update": integer(0, 0),
        "from": layer_numbers(),
        "weights_type": word("none", "none", "per_feature", "per_layer", "per_channel"),
        "weights_normalization": word("none", "none", "relu", "avg_relu", "softmax"),
        "activation": word("linear", *ACTIVATIONS),
        "alpha": real(1.0, -math.inf),
        "beta": real(1.0, -math.inf),
    },
    "reorg": {**_ANY_LAYER, "stride": integer(1), "reverse": flag(), "extra": integer(0, 0)},
    "reorg3d": {**_ANY_LAYER, "stride": integer(1), "reverse": flag()},
    "dropout": {
        **_ANY_LAYER,
        "probability": real(0.2, 0, 0.999),
        "dropblock": flag(),
        "dropblock_size_abs": integer(0, 0),
        "dropblock_size_rel": real(0.0, 0, 1),
    },
    "scale_channels": {
        **_ANY_LAYER,
        "from": Option(_read_layer_number, required=True),
        "scale_wh": flag(),
        "activation": word("linear", *ACTIVATIONS),
    },
    "sam": {
        **_ANY_LAYER,
        "from": Option(_read_layer_number, required=True),
        "activation": word("linear", *ACTIVATIONS),
    },
    "upsample": {**_ANY_LAYER, "stride": integer(2, -MAX_INTEGER), "scale": real(1.0)},
    "connected": {
        **_ANY_LAYER,
        "output": integer(1, high=10**7),
        "batch_normalize": flag(),
        "activation": word("logistic", *ACTIVATIONS),
    },
    "batchnorm": _ANY_LAYER,
    "activation": {**_ANY_LAYER, "activation": word("linear", *ACTIVATIONS)},
    "empty": _ANY_LAYER,
    "softmax": {
        **_ANY_LAYER,
        "groups": integer(1),
        "temperature": real(1.0),
        "noloss": flag(),
        "spatial": only(0),
        "tree": refused("is a softmax over a tree of classes, which only darknet computes: load_cfg(..., layers=N)"),
    },
    "cost": {**_ANY_LAYER, "type": word("sse", "sse"), "scale": real(1.0)},
}
"""Section -> option -> its description."""

HEADS = ("yolo", "gaussian_yolo", "Gaussian_yolo", "region", "detection", "iseg")
"""Sections that make a cfg a detector. The layers before the first of them are read."""

_BOTH, _ALEXEYAB = "both darknets read it", "AlexeyAB's darknet reads it"
UNREAD_SECTIONS = {
    "prelu": "a fork of darknet for MTCNN reads it",
    **dict.fromkeys(
        (
            "lrn",
            "normalization",
            "deconvolutional",
            "deconv",
            "local",
            "rnn",
            "crnn",
            "gru",
            "lstm",
            "logistic",
            "l2norm",
        ),
        _BOTH,
    ),
    **dict.fromkeys(("conv_lstm", "history", "contrastive", "implicit", "sam_layer"), _ALEXEYAB),
}
"""Section that is not read here -> what reads it."""

SECTION_ALIASES = {
    "network": "net",
    "conv": "convolutional",
    "max": "maxpool",
    "local_avg": "local_avgpool",
    "avg": "avgpool",
    "soft": "softmax",
    "conn": "connected",
}
OPTION_ALIASES = {
    "weights_normalizion": "weights_normalization",
    "workspace_size_limit_MB": "workspace_size_limit_mb",
    "B1": "b1",
    "B2": "b2",
}
VALUE_ALIASES = {"per_layer": "per_feature", "avg_relu": "relu"}
"""Other spellings that darknet accepts. The cfgs of the thread all have ``weights_normalizion``."""
