"""Resize decoded windows on the CPU with torch, in an eighth of DALI's time and with PIL's rounding."""

from collections.abc import Sequence
from concurrent.futures import Executor
from itertools import repeat

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from backbones.data.augment.crop import Crops
from backbones.recipe import Interpolation

PIL_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def resize_windows(
    windows: Sequence[torch.Tensor], crops: Crops, *, size: int, interpolation: Interpolation, pool: Executor
) -> torch.Tensor:
    """Resize the box of each window by its crop, with antialiasing, cut (size, size) out of it, and mirror it.

    Shape: uint8 (H, W, 3) of different sizes -> uint8 (N, size, size, 3).
    """
    out = torch.empty((len(windows), size, size, 3), dtype=torch.uint8)
    parts = (part.tolist() for part in (crops.boxes, crops.resized, crops.corners, crops.flips))
    places = zip(*parts, strict=True)
    for _ in pool.map(_resize_into, out, windows, places, repeat(interpolation)):
        pass
    return out


def _resize_into(
    out: torch.Tensor,
    window: torch.Tensor,
    place: tuple[list[float], list[int], list[int], int],
    interpolation: Interpolation,
) -> None:
    """Fill one square (size, size, 3)."""
    box, resized, (top, left), flip = place
    height, width, _ = window.shape
    if box == [0, 0, height, width]:
        whole = _resize_whole(window, resized, interpolation)
    else:
        whole = _resize_box(window, box, resized, interpolation)
    cut = whole[top : top + out.shape[0], left : left + out.shape[1]]
    out.copy_(cut.flip(1) if flip else cut)


def _resize_whole(window: torch.Tensor, resized: list[int], interpolation: Interpolation) -> torch.Tensor:
    height, width, _ = window.shape
    # With these strides, which a single image does not have by itself, torch works on whole pixels in half the time
    image = torch.as_strided(window, (1, 3, height, width), (height * width * 3, 1, width * 3, 3))
    return F.interpolate(image, resized, mode=interpolation, antialias=True)[0].permute(1, 2, 0)


def _resize_box(
    window: torch.Tensor, box: list[float], resized: list[int], interpolation: Interpolation
) -> torch.Tensor:
    """Resize a part of a window with PIL, whose boxes may have fractional edges; torch has no such thing.

    Shape: uint8 (H, W, 3) -> uint8 (*resized, 3).
    """
    top, left, tall, wide = box
    image, (height, width) = Image.fromarray(window.numpy()), resized
    edges = (left, top, left + wide, top + tall)
    return torch.from_numpy(np.array(image.resize((width, height), PIL_FILTERS[interpolation], box=edges)))
