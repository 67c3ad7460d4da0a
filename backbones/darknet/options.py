"""The table of every section and option that a classifier's cfg may have: type, range and default."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from backbones.darknet.activation import ACTIVATIONS
from backbones.errors import did_you_mean

Value = int | float | str | tuple[int, ...] | tuple[float, ...] | None
LIMIT = 65_536
"""No width, size or stride of a real network comes near it."""


@dataclass(frozen=True)
class Option:
    """What one option takes."""

    read: Callable[[str], Any]
    """Turns the text into a value; raises ``ValueError`` that says what the value must be."""
    default: Value = None
    """Its value where the cfg does not have it; None where that depends on the other options."""
    required: bool = False
    """The section makes no sense without it."""


def integer(default: int | None, low: int = 1, high: int = LIMIT, *, required: bool = False) -> Option:
    """Describe a whole number in [low, high]."""
    return Option(lambda text: _within(_whole(text), low, high), default, required)


def real(default: float, low: float = 0.0, high: float = math.inf) -> Option:
    """Describe a finite number in [low, high]."""
    return Option(lambda text: _within(_number(text), low, high), default)


def flag(default: int = 0) -> Option:
    """Describe 0 or 1: darknet reads ``yes`` as 0, so words are refused."""
    return integer(default, 0, 1)


def word(default: str, *choices: str) -> Option:
    """Describe one of ``choices``."""
    return Option(lambda text: _one_of(text, choices), default)


def integers() -> Option:
    """Describe layer numbers, as ``-1,36``; there is no section in which they can be left out."""
    return Option(lambda text: tuple(_within(_whole(part), -LIMIT, LIMIT) for part in _parts(text)), required=True)


def reals() -> Option:
    """Describe numbers separated by commas."""
    return Option(lambda text: tuple(_within(_number(part), 0, math.inf) for part in _parts(text)))


def only(value: int) -> Option:
    """Describe an option that darknet has and we do not: whatever is not its default is refused."""
    return Option(lambda text: _only(_number(text), value), value)


def _whole(text: str) -> int:
    if not re.fullmatch(r"[+-]?[0-9]{1,18}", text):
        raise ValueError("must be a whole number")
    return int(text)


def _number(text: str) -> float:
    try:
        number = float(text if text.isascii() and "_" not in text else "")
    except ValueError:
        raise ValueError("must be a number") from None
    if not math.isfinite(number):
        raise ValueError("must be finite")
    return number


def _parts(text: str) -> list[str]:
    return text.rstrip(",").split(",")


def _within(number: Any, low: float, high: float) -> Any:
    if not low <= number <= high:
        raise ValueError(f"must be at least {low}" if number < low else f"must be at most {high}")
    return number


def _one_of(text: str, choices: tuple[str, ...]) -> str:
    if text not in choices:
        raise ValueError(f"is not one of {', '.join(choices)}.{did_you_mean(text, choices)}".rstrip("."))
    return text


def _only(number: float, value: int) -> int:
    if number != value:
        raise ValueError(f"is not supported here: leave it out or say {value}")
    return value


_ACTIVATION = tuple(ACTIVATIONS)
_ANY_LAYER = {
    "burnin_update": only(0),
    "learning_rate": only(1),
    "dontload": only(0),
    "onlyforward": only(0),
    "dont_update": only(0),
    "stopbackward": only(0),
    "train_only_bn": only(0),
    "dontloadscales": only(0),
    "clip": only(0),
    "dynamic_minibatch": only(0),
}
_STRIDES = {"stride": integer(1), "stride_x": integer(None), "stride_y": integer(None)}
_POOL = {**_STRIDES, "size": integer(None, high=1024), "padding": integer(None, 0)}
_TRAINING = {
    "batch": integer(1, high=10**6),
    "subdivisions": integer(1, high=10**6),
    "learning_rate": real(0.001),
    "learning_rate_min": real(0.00001),
    "momentum": real(0.9, 0, 1),
    "decay": real(0.0001),
    "max_batches": integer(0, 0, 10**9),
    "burn_in": integer(0, 0, 10**9),
    "power": real(4.0),
    "policy": word(
        "constant", "constant", "poly", "step", "steps", "exp", "sig", "sigmoid", "random", "sgdr", "custom"
    ),
    "step": integer(1, high=10**9),
    "steps": reals(),
    "scale": real(1.0),
    "scales": reals(),
    "gamma": real(1.0),
    "batches_per_cycle": integer(0, 0, 10**9),
    "batches_cycle_mult": integer(2, 0),
    "adam": flag(),
    "b1": real(0.9, 0, 1),
    "b2": real(0.999, 0, 1),
    "eps": real(1e-6),
    "ema_alpha": real(0.0, 0, 1),
    "loss_scale": real(1.0),
    "grad_centr": flag(),
    "try_fix_nan": flag(),
    "augment_speed": integer(2, 0),
    "dynamic_minibatch": flag(),
    "optimized_memory": integer(0, 0),
    "workspace_size_limit_mb": integer(1024, 0),
    "use_cuda_graph": flag(),
    "track": flag(),
    "time_steps": integer(1),
    "attention": flag(),
    "adversarial_lr": real(0.0),
    "unsupervised": flag(),
    "contrastive": flag(),
    "weights_reject_freq": integer(0, 0),
    "sequential_subdivisions": integer(1),
    "init_sequential_subdivisions": integer(1),
    "show_receptive_field": flag(),
    "max_chart_loss": real(20.0),
    "equidistant_point": integer(0, 0, 10**9),
    "badlabels_rejection_percentage": real(0.0),
    "num_sigmas_reject_badlabels": real(0.0),
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

SECTIONS: dict[str, dict[str, Option]] = {
    "net": {
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
        "activation": word("logistic", *_ACTIVATION),
        "antialiasing": integer(0, 0, 2),
        "cbn": only(0),
        "flipped": only(0),
        **{name: only(0) for name in ("binary", "xnor", "bin_output", "assisted_excitation", "share_index")},
        **{name: only(0) for name in ("dot", "sway", "rotate", "stretch", "stretch_sway", "deform", "coordconv")},
    },
    "maxpool": {
        **_ANY_LAYER,
        **_POOL,
        "maxpool_depth": flag(),
        "out_channels": integer(1),
        "antialiasing": integer(0, 0, 2),
    },
    "local_avgpool": {**_ANY_LAYER, **_POOL},
    "avgpool": _ANY_LAYER,
    "route": {**_ANY_LAYER, "layers": integers(), "groups": integer(1), "group_id": integer(0, 0)},
    "shortcut": {
        **_ANY_LAYER,
        "burnin_update": integer(0, 0),
        "from": integers(),
        "weights_type": word("none", "none", "per_feature", "per_layer", "per_channel"),
        "weights_normalization": word("none", "none", "relu", "avg_relu", "softmax"),
        "activation": word("linear", *_ACTIVATION),
    },
    "reorg": {**_ANY_LAYER, "stride": integer(1), "reverse": flag()},
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
        "from": Option(lambda text: _within(_whole(text), -LIMIT, LIMIT), required=True),
        "scale_wh": flag(),
        "activation": word("linear", *_ACTIVATION),
    },
    "sam": {
        **_ANY_LAYER,
        "from": Option(lambda text: _within(_whole(text), -LIMIT, LIMIT), required=True),
        "activation": word("linear", *_ACTIVATION),
    },
    "upsample": {**_ANY_LAYER, "stride": integer(2, -LIMIT), "scale": real(1.0)},
    "connected": {
        **_ANY_LAYER,
        "output": integer(1, high=10**7),
        "batch_normalize": flag(),
        "activation": word("logistic", *_ACTIVATION),
    },
    "batchnorm": _ANY_LAYER,
    "softmax": {
        **_ANY_LAYER,
        "groups": integer(1),
        "temperature": real(1.0),
        "noloss": flag(),
        "spatial": only(0),
    },
    "cost": {**_ANY_LAYER, "type": word("sse", "sse"), "scale": real(1.0)},
}
"""Section -> option -> what it takes."""

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
"""Darknet's other spellings; the cfgs of the thread all have the first of OPTION_ALIASES."""
