"""Colour changes of a whole batch: one affine 3 x 4 matrix for each image, x' = M[:, :3] x + M[:, 3].

Colours are RGB in [0, 1]; results are clamped to [0, 1] once, at the end.
"""

import math

import numpy as np
import torch

from backbones.data.augment.draws import (
    BRIGHTNESS,
    CONTRAST,
    EXPOSE,
    EXPOSE_COIN,
    HUE,
    SATURATE,
    SATURATE_COIN,
    SATURATION,
    random_factors,
)
from backbones.recipe import Augment

LUMA = np.array([0.299, 0.587, 0.114])
"""Share of red, green and blue in the brightness that the eye sees (ITU-R BT.601)."""

MIDDLE_GREY = 0.5
"""What contrast leaves as it is."""

PIXELS_PER_ROW = 4
"""Pixels that one row of the matrix product holds at most."""


def darknet_shifts(draws: np.ndarray, augment: Augment) -> np.ndarray:
    """Return darknet's random shift of the hue, as a share of the circle, and factors of saturation and value.

    Shape: (N, DRAWS) in [0, 1) -> (N, 3) float64.
    """
    ranges = augment.darknet
    hue = (2 * draws[:, HUE] - 1) * ranges.hue
    saturation = random_factors(draws[:, SATURATE], draws[:, SATURATE_COIN], ranges.saturation)
    value = random_factors(draws[:, EXPOSE], draws[:, EXPOSE_COIN], ranges.exposure)
    return np.stack([hue, saturation, value], axis=1)


def darknet_matrices(draws: np.ndarray, augment: Augment) -> np.ndarray:
    """Return the linear stand-ins for darknet's random HSV shifts, see :func:`shift_matrices`.

    Shape: (N, DRAWS) in [0, 1) -> (N, 3, 4) float32.
    """
    return shift_matrices(darknet_shifts(draws, augment))


def shift_matrices(shifts: np.ndarray) -> np.ndarray:
    """Return matrices that come close to a shift in HSV: exact for the value, and for a hue shift of thirds.

    The hue turns about the grey axis with equal weights, which came closer to HSV on photographs than turns that keep
    the luma (YIQ); saturation spreads colours about their luma, which came closer than about their mean. HSV keeps
    the largest channel where these keep the luma, so what differs most is the brightness of strong colours.

    Shape: (N, 3) hue as a share of the circle, factors of saturation and value -> (N, 3, 4) float32.
    """
    hue, saturation, value = shifts.T
    linear = value[:, None, None] * (_saturations(saturation) @ _hue_turns(2 * math.pi * hue))
    return _affine(linear, np.zeros(len(shifts)))


def jitter_matrices(draws: np.ndarray, augment: Augment) -> np.ndarray:
    """Return inception's colour jitter: brightness, then contrast, then saturation, factors in [1 - j, 1 + j].

    Contrast is about a fixed middle grey, where torchvision takes the mean grey of the image: so the matrix needs no
    statistics of the image. torchvision also clamps after each of the three.

    Shape: (N, DRAWS) in [0, 1) -> (N, 3, 4) float32.
    """
    factors = 1 + (2 * draws[:, [BRIGHTNESS, CONTRAST, SATURATION]] - 1) * augment.inception.color_jitter
    brightness, contrast, saturation = factors.T
    linear = (brightness * contrast)[:, None, None] * _saturations(saturation)
    return _affine(linear, (1 - contrast) * MIDDLE_GREY)


def recolour(pixels: torch.Tensor, matrices: torch.Tensor, *, out: torch.Tensor | None = None) -> torch.Tensor:
    """Return the pixels of each image in its new colours, clamped to [0, 1], in ``out`` where it is given.

    One batched matrix product. A pixel alone would be a row of three, which wastes most of a vector unit; four
    pixels in a row of twelve, with the matrix four times on the diagonal, are three times as fast on a CPU.

    Shape: (N, H, W, 3), (N, 3, 4), both float32 on one device -> (N, H, W, 3).
    """
    count, height, width, _ = pixels.shape
    together = math.gcd(PIXELS_PER_ROW, height * width)
    rows = pixels.reshape(count, height * width // together, 3 * together)
    blocks = torch.einsum("ab,nji->naibj", torch.eye(together, device=pixels.device), matrices[:, :, :3])
    offsets = matrices[:, None, :, 3].repeat(1, 1, together)
    target = None if out is None else out.view(rows.shape)
    recoloured = torch.baddbmm(offsets, rows, blocks.reshape(count, 3 * together, 3 * together), out=target)
    return recoloured.clamp_(0, 1).view(count, height, width, 3)


def _hue_turns(angles: np.ndarray) -> np.ndarray:
    """Return rotations about the grey axis; a third of the circle turns red into green, green into blue.

    Shape: (N,) in radians -> (N, 3, 3).
    """
    places = angles[:, None] - 2 * math.pi / 3 * np.arange(3)
    shares = (1 + 2 * np.cos(places)) / 3
    return shares[:, (np.arange(3)[:, None] - np.arange(3)) % 3]


def _saturations(factors: np.ndarray) -> np.ndarray:
    """Return matrices that multiply each colour's difference from its luma.

    Shape: (N,) -> (N, 3, 3).
    """
    return factors[:, None, None] * np.eye(3) + (1 - factors)[:, None, None] * LUMA


def _affine(linear: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """Return linear (N, 3, 3) with an offset (N,) that is the same for all channels, as (N, 3, 4) float32."""
    columns = np.broadcast_to(offset[:, None, None], (len(offset), 3, 1))
    return np.concatenate([linear, columns], axis=2).astype(np.float32)
