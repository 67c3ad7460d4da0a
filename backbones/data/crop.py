"""Where an image is cut and how far it is resized: one geometry for both decoders, training and validation.

The formulas use only operations that IEEE 754 rounds exactly (+ - * / sqrt floor min max in float64), so that
DALI's graph and plain Python agree on every pixel coordinate. Logarithms are taken before, in numpy, once.
"""

import math
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from backbones.recipe import Augment, Preprocess

DRAWS = 5
"""Uniform numbers per training image: area, ratio, vertical place, horizontal place, flip."""

PYTHON = SimpleNamespace(sqrt=math.sqrt, floor=math.floor, min=min, max=max)
"""The four functions of the geometry for plain numbers; ``nvidia.dali.math`` has the same for DALI's graph."""


@dataclass(frozen=True)
class View:
    """How images become (size, size) pixels: at random for training, centred for validation."""

    size: int
    """Height and width in pixels."""
    preprocess: Preprocess
    """Interpolation, and for validation the share of the centre crop."""
    augment: Augment | None = None
    """Ranges of the random crop; None: validation."""


class Geometry(NamedTuple):
    """Cut ``window``, resize it to ``resized``, cut (size, size) at ``corner``, mirror if ``flip``.

    Each number is an int or a node of DALI's graph.
    """

    window: tuple[Any, Any, Any, Any]
    """top, left, height, width in the image."""
    resized: tuple[Any, Any]
    """height, width."""
    corner: tuple[Any, Any]
    """top, left in the resized window."""
    flip: Any
    """1: mirror left and right."""


def crop_arguments(draws: np.ndarray, augment: Augment | None) -> np.ndarray:
    """Turn uniform draws into what the geometry needs: height and width shares, vertical and horizontal place, flip.

    With area share s uniform in ``scale`` and ratio r log-uniform in ``ratio``, the window is sqrt(s / r) high and
    sqrt(s * r) wide, in units of the root of the image's area. Validation ignores the draws: all zeros.

    Shape: draws (N, DRAWS) -> (N, 5) float64.
    """
    if augment is None:
        return np.zeros((len(draws), 5))
    area = augment.scale[0] + draws[:, 0] * (augment.scale[1] - augment.scale[0])
    low, high = np.log(augment.ratio)
    ratio = np.exp(low + draws[:, 1] * (high - low))
    flip = (draws[:, 4] < augment.hflip).astype(np.float64)
    return np.stack([np.sqrt(area / ratio), np.sqrt(area * ratio), draws[:, 2], draws[:, 3], flip], axis=1)


def geometry(height: Any, width: Any, arguments: Any, *, view: View, ops: Any = PYTHON) -> Geometry:
    """Return the geometry of a height x width image; ``arguments`` is its row of :func:`crop_arguments`."""
    if view.augment is None:
        return _centre(height, width, arguments, view=view, ops=ops)
    return _random(height, width, arguments, size=view.size, ops=ops)


def _random(height: Any, width: Any, arguments: Any, *, size: int, ops: Any) -> Geometry:
    """Cut a window of the drawn shape, no larger than the image, at the drawn place, and resize it to the square."""
    root = ops.sqrt(height * width)
    tall = ops.max(1, ops.min(height, ops.floor(root * arguments[0] + 0.5)))
    wide = ops.max(1, ops.min(width, ops.floor(root * arguments[1] + 0.5)))
    top = ops.floor(arguments[2] * (height - tall + 1))
    left = ops.floor(arguments[3] * (width - wide + 1))
    return Geometry((top, left, tall, wide), (size, size), (0, 0), arguments[4])


def _centre(height: Any, width: Any, arguments: Any, *, view: View, ops: Any) -> Geometry:
    """Resize the short side to size / crop_pct, truncate the long side, cut the centre with truncated offsets."""
    short = math.floor(view.size / view.preprocess.crop_pct)
    side = ops.min(height, width)
    tall, wide = ops.floor(short * height / side), ops.floor(short * width / side)
    corner = ops.floor((tall - view.size) / 2), ops.floor((wide - view.size) / 2)
    return Geometry((0, 0, height, width), (tall, wide), corner, arguments[4])
