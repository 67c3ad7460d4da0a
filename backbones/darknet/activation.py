"""Every element-wise activation of darknet by its name, also the ones that our own networks do not use."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbones.layers.activation import create_activation


class Elementwise(nn.Module):
    """Function of one number, applied to each element.

    Shape:
        (N, ...) -> (N, ...)
    """

    def __init__(self, name: str, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.name = name
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        """Apply the function."""
        return self.function(x)

    def extra_repr(self) -> str:
        """Show the name."""
        return self.name


def hard_mish(x: Tensor) -> Tensor:
    """Return x for x > 0, x²/2 + x for x > -2, otherwise 0.

    Shape:
        any -> the same
    """
    return torch.where(x > 0, x, torch.where(x > -2, x * x / 2 + x, torch.zeros_like(x)))


def stair(x: Tensor) -> Tensor:
    """Return a staircase that rises by one in every second unit interval.

    Shape:
        any -> the same
    """
    floor = x.floor()
    return torch.where(floor % 2 == 0, (x / 2).floor(), x - floor + (x / 2).floor())


def lhtan(x: Tensor) -> Tensor:
    """Return x in [0, 1], continued outside with slope 0.001.

    Shape:
        any -> the same
    """
    return torch.where(x < 0, 0.001 * x, torch.where(x > 1, 0.001 * (x - 1) + 1, x))


def plse(x: Tensor) -> Tensor:
    """Return x / 8 + 1/2 in [-4, 4], continued outside with slope 0.01.

    Shape:
        any -> the same
    """
    return torch.where(x < -4, 0.01 * (x + 4), torch.where(x > 4, 0.01 * (x - 4) + 1, 0.125 * x + 0.5))


_FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "logistic": torch.sigmoid,
    "loggy": lambda x: 2 * torch.sigmoid(x) - 1,
    "tanh": torch.tanh,
    "elu": F.elu,
    "selu": lambda x: torch.where(x >= 0, 1.0507 * x, 1.0507 * 1.6732 * torch.expm1(x)),
    "gelu": lambda x: F.gelu(x, approximate="tanh"),
    "relu6": F.relu6,
    "relie": lambda x: F.leaky_relu(x, 0.01),
    "ramp": lambda x: F.relu(x) + 0.1 * x,
    "hardtan": F.hardtanh,
    "hard_mish": hard_mish,
    "lhtan": lhtan,
    "plse": plse,
    "stair": stair,
}
"""Activations that only darknet has. The others are those of `create_activation`."""


def darknet_activation(name: str) -> nn.Module:
    """Build the activation that darknet calls ``name``.

    ``relu6`` is min(max(x, 0), 6), as in darknet's GPU code. Darknet's CPU code returns 0 for it.
    """
    if name in _FUNCTIONS:
        return Elementwise(name, _FUNCTIONS[name])
    return create_activation(name)  # type: ignore[arg-type]
