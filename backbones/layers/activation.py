"""Activations by their names in darknet."""

from collections.abc import Callable
from typing import get_args

from torch import nn

from backbones.choices import ActivationName
from backbones.errors import require_choice


def create_activation(name: ActivationName, channels: int | None = None, *, inplace: bool = True) -> nn.Module:
    """Build the element-wise activation ``name``.

    Args:
        name: ``linear`` (identity), ``relu``, ``leaky`` (slope 0.1), ``mish``, ``swish``, ``prelu`` (one
            learned slope) or ``prelu_channel`` (one learned slope for each channel).
        channels: channels of the input; used by ``prelu_channel`` only.
        inplace: let ``relu`` and ``leaky`` overwrite their input, which saves one activation map. The others need
            their input for backward and ignore the flag.

    Shape:
        (N, C, ...) -> (N, C, ...)

    Raises:
        ValueError: ``name`` is unknown, or ``prelu_channel`` lacks ``channels``.
    """
    require_choice("act", name, get_args(ActivationName))
    return _BUILDERS[name](channels, inplace)


def _create_prelu_channel(channels: int | None) -> nn.Module:
    if channels is None:
        raise ValueError("act='prelu_channel' has one slope for each channel: channels must be given")
    return nn.PReLU(channels)


_BUILDERS: dict[ActivationName, Callable[[int | None, bool], nn.Module]] = {
    "linear": lambda _channels, _inplace: nn.Identity(),
    "relu": lambda _channels, inplace: nn.ReLU(inplace),
    "leaky": lambda _channels, inplace: nn.LeakyReLU(0.1, inplace),
    "mish": lambda _channels, _inplace: nn.Mish(),
    "swish": lambda _channels, _inplace: nn.SiLU(),
    "prelu": lambda _channels, _inplace: nn.PReLU(),
    "prelu_channel": lambda channels, _inplace: _create_prelu_channel(channels),
}
