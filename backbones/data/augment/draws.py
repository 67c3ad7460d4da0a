"""Meaning of the uniform random numbers of an image; each augmentation uses the columns in its own way."""

import numpy as np

DRAWS = 20
"""Number of uniform numbers in [0, 1) per training image."""

FLIP = 4
"""Horizontal flip, in both augmentations."""

AREA, RATIO, TOP, LEFT = 0, 1, 2, 3
"""inception: the crop."""
BRIGHTNESS, CONTRAST, SATURATION = 5, 6, 7
"""inception: colour jitter."""
AUTO = slice(8, 14)
"""inception: two operations, each with position, strength and sign."""
ERASE = slice(14, 19)
"""inception: whether to erase, area, ratio, vertical and horizontal place."""

ASPECT, ASPECT_COIN, SCALE, ANGLE = 0, 1, 2, 3
"""darknet: the shape of the warp."""
SHIFT_X, SHIFT_Y = 5, 6
"""darknet: the place of the warp."""
HUE, SATURATE, SATURATE_COIN, EXPOSE, EXPOSE_COIN = 7, 8, 9, 10, 11
"""darknet: the colours; a coin turns a factor into its reciprocal."""


def random_factors(draws: np.ndarray, coins: np.ndarray, end: float) -> np.ndarray:
    """Return factors uniform between ``end`` and 1; a coin below 0.5 turns a factor into its reciprocal.

    Shape: (N,) in [0, 1), (N,) in [0, 1) -> (N,).
    """
    factors = end + draws * (1 - end)
    return np.where(coins < 0.5, 1 / factors, factors)
