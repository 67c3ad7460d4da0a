"""Options of a recipe that contradict each other: which one gives way."""

from collections.abc import Callable
from typing import Any, NamedTuple


class Contradiction(NamedTuple):
    """An option whose value makes another option meaningless."""

    option: str
    overridden: str
    """Option or group of options in a file that takes its default where the command line or a later file has
    ``option``."""
    clash: Callable[[Any, Any], bool]
    """Return whether the value of ``option`` contradicts the value of ``overridden``."""


def _chooses(choice: object) -> Callable[[Any, Any], bool]:
    return lambda value, _: value == choice


def _is_set(value: Any, _: Any) -> bool:
    return value is not None


def _always(_value: Any, _other: Any) -> bool:
    return True


def _is_unset(value: Any, _: Any) -> bool:
    return value is None


def _is_too_short(steps: Any, burn_in: Any) -> bool:
    return isinstance(steps, int) and isinstance(burn_in, int) and steps <= burn_in


CONTRADICTIONS = (
    Contradiction("steps", "epochs", _is_set),
    Contradiction("epochs", "steps", _is_set),
    Contradiction("steps", "optim.burn_in", _is_too_short),
    Contradiction("augment.augmentation", "augment.darknet", _chooses("inception")),
    Contradiction("augment.augmentation", "augment.inception", _chooses("darknet")),
    Contradiction("preprocess.protocol", "preprocess.interpolation", _chooses("darknet")),
    Contradiction("preprocess.protocol", "preprocess.crop_pct", _chooses("full")),
    Contradiction("loading.bad_images", "loading.bad_images_limit", _chooses("stop")),
    Contradiction("init_weights", "init_sha256", _always),
    Contradiction("init_weights", "init_partial", _is_unset),
    Contradiction("init_weights", "pretrained", _is_set),
    Contradiction("pretrained", "init_sha256", _always),
    Contradiction("pretrained", "init_weights", _chooses(True)),
    Contradiction("optim.fusion_update", "optim.burnin_update", _chooses("sgd")),
)
"""Options of a file that a later file or the command line overrides. An option that only one choice uses does not
contradict that choice: it stays an error that names what to add."""
