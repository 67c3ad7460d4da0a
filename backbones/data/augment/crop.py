"""Crops and resizes of a whole batch as rectangles, the same for DALI and the reference."""

import math
from typing import NamedTuple

import numpy as np

from backbones.data.augment.draws import AREA, FLIP, LEFT, RATIO, TOP
from backbones.recipe import Augment, Preprocess

MAX_ASPECT = 8
"""Long side / short side above which evaluation resizes only the part that the crop sees."""

FILTER_RADIUS = {"bilinear": 1, "bicubic": 2}
"""Reach of a filter in pixels: of the source where it is enlarged, of the result where it is made smaller."""


class Crops(NamedTuple):
    """Cut ``windows``, resize their ``boxes`` to ``resized``, cut (size, size) at ``corners``, mirror ``flips``.

    A box is a part of its window with fractional edges. The filter of the resize also sees what is around the box.

    Shape: windows (N, 4) top, left, height, width in the image; boxes (N, 4) float64, the same in the window; resized
    (N, 2) height, width; corners (N, 2) top, left in the resized box; flips (N,) 0 or 1. The others int64, in pixels.
    """

    windows: np.ndarray
    boxes: np.ndarray
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
    boxes = whole_boxes(shape)
    return Crops(np.hstack([place, shape]), boxes, np.full_like(sizes, size), np.zeros_like(sizes), flips)


def validation_crops(sizes: np.ndarray, *, size: int, preprocess: Preprocess) -> Crops:
    """Return the crops of timm's protocol, as torchvision's Resize and CenterCrop make them, or of ``full``.

    timm: the short side becomes floor(size / crop_pct), the long side is truncated, and the offset is rounded to even.
    full: the whole image, squashed to a square.

    Shape: sizes (N, 2) height, width.
    """
    windows, flips = np.hstack([np.zeros_like(sizes), sizes]), np.zeros(len(sizes), dtype=np.int64)
    if preprocess.protocol == "full":
        resized = np.full_like(sizes, size)
    else:
        resized = math.floor(size / preprocess.crop_pct) * sizes // sizes.min(axis=1, keepdims=True)
    corners = np.rint((resized - size) / 2).astype(np.int64)
    crops = Crops(windows, whole_boxes(sizes), resized, corners, flips)
    is_thin = resized.max(axis=1) > MAX_ASPECT * resized.min(axis=1)
    if not is_thin.any():
        return crops
    return _narrow(crops, is_thin, size=size, radius=FILTER_RADIUS[preprocess.interpolation])


def whole_boxes(shapes: np.ndarray) -> np.ndarray:
    """Return boxes that are the whole windows of ``shapes`` (N, 2) height, width."""
    return np.hstack([np.zeros_like(shapes), shapes]).astype(np.float64)


def _narrow(crops: Crops, rows: np.ndarray, *, size: int, radius: int) -> Crops:
    """Return the crops of whole images with the same pixels, but for ``rows`` only from what the cut square sees.

    The square is the picture of a box in the image. The window holds it and as much around it as the filter sees, so
    that the memory depends on ``size`` and on the short side, not on the long one.
    """
    sizes = crops.windows[:, 2:]
    scale = sizes / crops.resized
    start, extent = crops.corners * scale, size * scale
    margin = radius * np.maximum(scale, 1) + 1
    first = np.maximum(np.floor(start - margin).astype(np.int64), 0)
    end = np.minimum(np.ceil(start + extent + margin).astype(np.int64), sizes)
    narrow = Crops(
        windows=np.hstack([first, end - first]),
        boxes=np.hstack([start - first, np.minimum(extent, end - start)]),
        resized=np.full_like(sizes, size),
        corners=np.zeros_like(sizes),
        flips=crops.flips,
    )
    pairs = zip(crops, narrow, strict=True)
    return Crops(*(np.where(rows.reshape(-1, *[1] * (old.ndim - 1)), new, old) for old, new in pairs))
