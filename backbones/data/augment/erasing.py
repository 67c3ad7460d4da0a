"""Random erasing: rectangles are drawn on the CPU, and painted on any device."""

import numpy as np
import torch

from backbones.data.augment.draws import ERASE
from backbones.recipe import InceptionAugment

AREA = (0.02, 0.33)
"""Smallest and largest share of the image's area (Zhong et al., arXiv:1708.04896, torchvision and timm)."""

RATIO = (0.3, 3.3)
"""Smallest and largest height / width of the rectangle, as in torchvision."""


def erase_boxes(draws: np.ndarray, inception: InceptionAugment, *, size: int) -> np.ndarray:
    """Turn uniform draws into rectangles in size x size images, with probability ``inception.erasing``.

    The area is uniform in AREA, the ratio log-uniform in RATIO, the place uniform. A rectangle of area a fits into the
    image if its ratio is in [a, 1 / a], so the ratio is drawn from the intersection with RATIO. This matters only for
    areas above 0.3, for which torchvision draws area and ratio again until they fit.

    Shape: (N, DRAWS) in [0, 1) -> (N, 4) int64 top, left, height, width in pixels; zeros where nothing is erased.
    """
    coin, u_area, u_ratio, u_top, u_left = draws[:, ERASE].T
    area = AREA[0] + u_area * (AREA[1] - AREA[0])
    low, high = np.log(np.maximum(RATIO[0], area)), np.log(np.minimum(RATIO[1], 1 / area))
    ratio = np.exp(low + u_ratio * (high - low))
    height, width = (_sides(share, size) for share in (np.sqrt(area * ratio), np.sqrt(area / ratio)))
    top, left = np.floor(u_top * (size - height + 1)), np.floor(u_left * (size - width + 1))
    boxes = np.stack([top, left, height, width], axis=1).astype(np.int64)
    return np.where((coin < inception.erasing)[:, None], boxes, 0)


def erase_(images: torch.Tensor, boxes: np.ndarray) -> torch.Tensor:
    """Overwrite each image's box with 0: the mean colour if the mean has been subtracted.

    The boxes are on the CPU, so the host never waits for a GPU.

    Shape: (N, C, H, W) float, any memory format, (N, 4) top, left, height, width -> the same tensor.
    """
    for image, (top, left, height, width) in zip(images, boxes.tolist(), strict=True):
        if height:
            image[:, top : top + height, left : left + width] = 0
    return images


def _sides(share: np.ndarray, size: int) -> np.ndarray:
    """Return lengths in whole pixels, at least one."""
    return np.clip(np.rint(share * size), 1, size)
