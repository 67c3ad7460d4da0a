"""Crops and resizes of a whole batch as rectangles, the same for DALI and the reference."""

import math
from typing import NamedTuple

import numpy as np

from backbones.data.augment.draws import AREA, FLIP, LEFT, RATIO, TOP
from backbones.recipe import Augment, Preprocess


class Crops(NamedTuple):
    """Cut ``windows`` out of the images, resize them to ``resized``, cut (size, size) at ``corners``, mirror ``flips``.

    Shape: windows (N, 4) top, left, height, width; resized (N, 2) height, width; corners (N, 2) top, left in the
    resized window; flips (N,) 0 or 1. All int64, in pixels.
    """

    windows: np.ndarray
    resized: np.ndarray
    corners: np.ndarray
    flips: np.ndarray


def training_crops(sizes: np.ndarray, draws: np.ndarray, *, size: int, augment: Augment) -> Crops:
    """Return the random resized crops of GoogLeNet's recipe (Szegedy et al. 2015).

    With area share s uniform in ``scale`` and width / height r log-uniform in ``ratio``, the window is sqrt(A s / r)
    high and sqrt(A s r) wide for an image of area A, rounded, and not larger than the image. Its place is uniform.

    Shape: sizes (N, 2) height, width; draws (N, DRAWS).
    """
    area, ratio = augment.inception.scale, np.log(augment.inception.ratio)
    pixels = sizes.prod(axis=1) * (area[0] + draws[:, AREA] * (area[1] - area[0]))
    stretch = np.exp(ratio[0] + draws[:, RATIO] * (ratio[1] - ratio[0]))
    wanted = np.stack([np.sqrt(pixels / stretch), np.sqrt(pixels * stretch)], axis=1)
    shape = np.clip(np.floor(wanted + 0.5).astype(np.int64), 1, sizes)
    place = np.floor(draws[:, [TOP, LEFT]] * (sizes - shape + 1)).astype(np.int64)
    flips = (draws[:, FLIP] < augment.hflip).astype(np.int64)
    return Crops(np.hstack([place, shape]), np.full_like(sizes, size), np.zeros_like(sizes), flips)


def validation_crops(sizes: np.ndarray, *, size: int, preprocess: Preprocess) -> Crops:
    """Return the crops of timm's protocol, as torchvision's Resize and CenterCrop make them, or of ``full``.

    timm: the short side becomes floor(size / crop_pct), the long side is truncated, and the offset is rounded to even.
    full: the whole image, squashed to a square.

    Shape: sizes (N, 2) height, width.
    """
    windows = np.hstack([np.zeros_like(sizes), sizes])
    if preprocess.protocol == "full":
        resized = np.full_like(sizes, size)
    else:
        resized = math.floor(size / preprocess.crop_pct) * sizes // sizes.min(axis=1, keepdims=True)
    corners = np.rint((resized - size) / 2).astype(np.int64)
    return Crops(windows, resized, corners, np.zeros(len(sizes), dtype=np.int64))
