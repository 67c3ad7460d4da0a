"""Colour changes of a whole batch: one affine 3 x 4 matrix per image, x' = M[:, :3] x + M[:, 3].

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
"""Shares of red, green and blue in the perceived brightness (ITU-R BT.601)."""

MIDDLE_GREY = 0.5
"""Value that a change of contrast keeps."""

PIXELS_PER_ROW = 4
"""Largest number of pixels in a row of the matrix product."""


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
    """Return linear approximations of darknet's random HSV shifts, see :func:`shift_matrices`.

    Shape: (N, DRAWS) in [0, 1) -> (N, 3, 4) float32.
    """
    return shift_matrices(darknet_shifts(draws, augment))


def shift_matrices(shifts: np.ndarray) -> np.ndarray:
    """Return matrices that approximate a shift in HSV; exact for the value, and for hue shifts by a third.

    The hue is a rotation about the grey axis with equal weights: on photographs it was closer to HSV than rotations
    that keep the luma (YIQ). Saturation scales colours about their luma, which was closer than about their mean. HSV
    keeps the largest channel and these matrices the luma, so the brightness of strong colours differs most.

    Shape: (N, 3) hue as a share of the circle, factors of saturation and value -> (N, 3, 4) float32.
    """
    hue, saturation, value = shifts.T
    linear = value[:, None, None] * (_saturations(saturation) @ _hue_turns(2 * math.pi * hue))
    return _affine(linear, np.zeros(len(shifts)))


def jitter_matrices(draws: np.ndarray, augment: Augment) -> np.ndarray:
    """Return inception's colour jitter: brightness, then contrast, then saturation, factors in [1 - j, 1 + j].

    Contrast changes about a fixed middle grey, so that no statistics of the image are needed; torchvision takes the
    mean grey of the image. torchvision also clamps after each of the three.

    Shape: (N, DRAWS) in [0, 1) -> (N, 3, 4) float32.
    """
    factors = 1 + (2 * draws[:, [BRIGHTNESS, CONTRAST, SATURATION]] - 1) * augment.inception.color_jitter
    brightness, contrast, saturation = factors.T
    linear = (brightness * contrast)[:, None, None] * _saturations(saturation)
    return _affine(linear, (1 - contrast) * MIDDLE_GREY)


def recolour(pixels: torch.Tensor, matrices: torch.Tensor, *, out: torch.Tensor | None = None) -> torch.Tensor:
    """Return the pixels of each image in its new colours, clamped to [0, 1], in ``out`` if it is given.

    One batched matrix product. A single pixel would be a row of three, which wastes most of a vector unit. Four pixels
    in a row of twelve, with the matrix four times on the diagonal, are three times as fast on a CPU.

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
    """Return rotations about the grey axis; a third of the circle maps red to green and green to blue.

    Shape: (N,) in radians -> (N, 3, 3).
    """
    differences = angles[:, None] - 2 * math.pi / 3 * np.arange(3)
    shares = (1 + 2 * np.cos(differences)) / 3
    return shares[:, (np.arange(3)[:, None] - np.arange(3)) % 3]


def _saturations(factors: np.ndarray) -> np.ndarray:
    """Return matrices that multiply each colour's difference from its luma.

    Shape: (N,) -> (N, 3, 3).
    """
    return factors[:, None, None] * np.eye(3) + (1 - factors)[:, None, None] * LUMA


def _affine(linear: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """Return linear (N, 3, 3) and one offset (N,) for all channels as (N, 3, 4) float32."""
    columns = np.broadcast_to(offset[:, None, None], (len(offset), 3, 1))
    return np.concatenate([linear, columns], axis=2).astype(np.float32)
