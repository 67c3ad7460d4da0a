"""darknet's warps as one affine map per image, the window of the image that is needed, and the sampling.

A matrix (2, 3) maps an output pixel (x, y, 1) to its position (x, y) in the image. Pixels have integer positions, as in
darknet. Sizes are (height, width), positions are (x, y).
"""

import math

import numpy as np
import torch
import torch.nn.functional as F

from backbones.data.augment.draws import ANGLE, ASPECT, ASPECT_COIN, FLIP, SCALE, SHIFT_X, SHIFT_Y, random_factors
from backbones.recipe import Augment

MARGIN_PIXELS = 1
"""Added on each side of a window, so that rounding in float32 never reads outside of it."""


def training_warps(sizes: np.ndarray, draws: np.ndarray, *, size: int, augment: Augment) -> np.ndarray:
    """Return darknet's random warps (random_augment_image), flipped with probability ``augment.hflip``.

    The image's height, or its width times the aspect where that is less, becomes min_crop to max_crop pixels long.
    The position is uniform where the image is larger than the output, and the centre where it is smaller.

    Shape: sizes (N, 2) height and width, draws (N, DRAWS) in [0, 1) -> (N, 2, 3) float64.
    """
    ranges = augment.darknet
    height, width = sizes.T.astype(np.float64)
    aspect = random_factors(draws[:, ASPECT], draws[:, ASPECT_COIN], ranges.aspect)
    length = ranges.min_crop + np.floor(draws[:, SCALE] * (ranges.max_crop - ranges.min_crop + 1))
    scale = length / np.maximum(1, np.floor(np.minimum(height, width * aspect)))
    stretch = np.stack([scale / aspect, scale], axis=1)
    room = np.maximum(0, (sizes[:, ::-1] * stretch - size) / 2)
    shift = (2 * draws[:, [SHIFT_X, SHIFT_Y]] - 1) * room
    angle = np.radians((2 * draws[:, ANGLE] - 1) * ranges.angle)
    warps = _rotate_about(sizes[:, ::-1] / 2, shift - size / 2, stretch=stretch, angle=angle)
    return np.where((draws[:, FLIP] < augment.hflip)[:, None, None], _mirror(warps, size), warps)


def validation_warps(sizes: np.ndarray, *, size: int, crop_pct: float) -> np.ndarray:
    """Return darknet's evaluation: the short side becomes size / crop_pct pixels, then the centre is cut out.

    The long side and the position of the centre are truncated to whole pixels. The corner pixels of the image become
    those of the resized image. A side of one pixel shows the first pixel.

    Shape: sizes (N, 2) height and width -> (N, 2, 3) float64.
    """
    short = math.floor(size / crop_pct)
    resized = short * sizes[:, ::-1] // sizes.min(axis=1, keepdims=True)
    step = (sizes[:, ::-1] - 1) / np.maximum(1, resized - 1)
    corner = (resized - size) // 2
    return np.concatenate([step[:, :, None] * np.eye(2), (step * corner)[:, :, None]], axis=2)


def source_windows(matrices: np.ndarray, sizes: np.ndarray, *, size: int) -> np.ndarray:
    """Return the part of each image that the output needs, with a margin, clipped to the image.

    It holds every pixel used by bilinear sampling of the size x size output, and at least one pixel, even if the output
    shows nothing of the image.

    Shape: matrices (N, 2, 3), sizes (N, 2) height and width -> (N, 4) int64 top, left, height, width.
    """
    corners = np.array([[0, size - 1, 0, size - 1], [0, 0, size - 1, size - 1], [1, 1, 1, 1]])
    positions = (matrices @ corners)[:, ::-1]
    first = np.floor(positions.min(axis=2)) - MARGIN_PIXELS
    last = np.floor(positions.max(axis=2)) + 1 + MARGIN_PIXELS
    start = np.clip(first, 0, sizes - 1)
    stop = np.clip(last + 1, start + 1, sizes)
    return np.concatenate([start, stop - start], axis=1).astype(np.int64)


def relative_to(matrices: np.ndarray, windows: np.ndarray) -> np.ndarray:
    """Return matrices for the cut-out windows with the same output as ``matrices`` for the whole images.

    Shape: (N, 2, 3), (N, 4) top, left, height, width -> (N, 2, 3).
    """
    relative = matrices.copy()
    relative[:, :, 2] -= windows[:, 1::-1]
    return relative


def warp(image: torch.Tensor, matrix: np.ndarray, size: int) -> torch.Tensor:
    """Return the image sampled through ``matrix``: bilinear in float64, black outside the image.

    Shape: (C, H, W), (2, 3) -> (C, size, size) of the image's dtype.
    """
    steps = np.arange(size)
    x, y = np.tensordot(matrix, np.stack([*np.meshgrid(steps, steps), np.ones((size, size))]), axes=1)
    height, width = image.shape[1:]
    # grid_sample counts from -1 to 1 between the outer edges of the outer pixels; this form has no division by 0.
    grid = torch.from_numpy(np.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], axis=2))
    out = F.grid_sample(image[None].double(), grid[None], padding_mode="zeros", align_corners=False)
    return out[0].to(image.dtype)


def _rotate_about(centre: np.ndarray, shift: np.ndarray, *, stretch: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """Return centre + rotation(angle) @ ((pixel + shift) / stretch) as matrices.

    Shape: centre, shift, stretch (N, 2) in x and y, angle (N,) in radians -> (N, 2, 3).
    """
    cos, sin = np.cos(angle), np.sin(angle)
    rotation = np.stack([cos, -sin, sin, cos], axis=1).reshape(-1, 2, 2)
    linear = rotation / stretch[:, None, :]
    offset = centre[:, :, None] + linear @ shift[:, :, None]
    return np.concatenate([linear, offset], axis=2)


def _mirror(matrices: np.ndarray, size: int) -> np.ndarray:
    """Return matrices with the output columns in reverse order."""
    return matrices @ np.array([[-1.0, 0, size - 1], [0, 1, 0], [0, 0, 1]])
