"""Rectangles of images pasted over others of the same batch: by slices on a CPU, by one gather on a GPU."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch

from backbones.data.batch import to_device

Paste = Callable[[torch.Tensor, Sequence["Patch"]], torch.Tensor]
"""Type of `paste_`."""

MAX_PATCHES = 3
"""Patches of one image at most: those of a mosaic."""


class Patch(NamedTuple):
    """Rectangle [top, bottom) x [left, right) of image ``partner``, pasted over the same one of image ``image``."""

    image: int
    partner: int
    top: int
    left: int
    bottom: int
    right: int
    weight: float = 1.0
    """Share of the partner in these pixels; the rest is ``image``."""

    @property
    def area(self) -> int:
        """Number of pixels."""
        return (self.bottom - self.top) * (self.right - self.left)


def paste_(images: torch.Tensor, patches: Sequence[Patch]) -> torch.Tensor:
    """Overwrite the patches with their unmixed partners; the patches of one image must not overlap.

    Shape: (N, C, H, W), any memory format -> the same tensor.
    """
    return paste_by_gather_(images, patches) if images.is_cuda else paste_by_slices_(images, patches)


def paste_by_slices_(images: torch.Tensor, patches: Sequence[Patch]) -> torch.Tensor:
    """Paste one patch after the other, which moves the least memory; each takes a kernel or two.

    Only sources that an earlier patch would change are copied first.

    Shape: as `paste_`.
    """
    changed: set[int] = set()
    sources: list[torch.Tensor] = []
    for patch in patches:
        source = _region(images, patch.partner, patch)
        sources.append(source.clone() if patch.partner in changed else source)
        changed.add(patch.image)
    for patch, source in zip(patches, sources, strict=True):
        target = _region(images, patch.image, patch)
        if patch.weight == 1:
            target.copy_(source)
        else:
            target.lerp_(source, patch.weight)
    return images


def paste_by_gather_(images: torch.Tensor, patches: Sequence[Patch]) -> torch.Tensor:
    """Look up for each pixel which image it comes from, in a number of kernels that does not depend on the batch.

    On a CPU it takes five times as long as slices.

    Shape: as `paste_`. Raises ValueError where an image has more than MAX_PATCHES.
    """
    if not patches:
        return images
    numbers, shares = tabulate(patches)
    table = to_device(torch.from_numpy(numbers), images.device)
    targets, boxes, partners = table[:, 0, 0], table[:, :, 1:5], table[:, :, 5]
    inside = _mark_inside(boxes, images.shape[2], images.shape[3])
    pixels = images.permute(0, 2, 3, 1)
    found = _look_up(pixels, _choose(inside, partners, targets[:, None, None]))
    if (shares != 1).any():
        weights = to_device(torch.from_numpy(shares), images.device)
        share = _choose(inside, weights, weights.new_ones(()))[..., None]
        found = torch.where(
            share == 1, found, torch.lerp(pixels.index_select(0, targets), found, share.to(found.dtype))
        )
    pixels.index_copy_(0, targets, found)
    return images


def tabulate(patches: Sequence[Patch]) -> tuple[np.ndarray, np.ndarray]:
    """Return the patches as a row for each image that has any; a missing patch is an empty rectangle of share 1.

    Shape: int64 (M, MAX_PATCHES, 6): image, top, left, bottom, right, partner; shares float32 (M, MAX_PATCHES).
    """
    rows = {image: row for row, image in enumerate(dict.fromkeys(patch.image for patch in patches))}
    numbers = np.zeros((len(rows), MAX_PATCHES, 6), dtype=np.int64)
    shares = np.ones((len(rows), MAX_PATCHES), dtype=np.float32)
    numbers[:, :, 0] = np.array(list(rows))[:, None]
    used = np.zeros(len(rows), dtype=int)
    for patch in patches:
        row = rows[patch.image]
        if used[row] == MAX_PATCHES:
            raise ValueError(f"image {patch.image} has more than {MAX_PATCHES} patches")
        numbers[row, used[row], 1:] = *patch[2:6], patch.partner
        shares[row, used[row]] = patch.weight
        used[row] += 1
    return numbers, shares


def _mark_inside(boxes: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Return which pixels are inside of each patch: (M, MAX_PATCHES, 4) -> bool (MAX_PATCHES, M, H, W)."""
    top, left, bottom, right = boxes.transpose(0, 1)[..., None].unbind(2)
    row, column = torch.arange(height, device=boxes.device), torch.arange(width, device=boxes.device)
    rows, columns = (row >= top) & (row < bottom), (column >= left) & (column < right)
    return rows[..., :, None] & columns[..., None, :]


def _choose(inside: torch.Tensor, values: torch.Tensor, default: torch.Tensor) -> torch.Tensor:
    """Return for each pixel the value of the patch that it is in: values (M, MAX_PATCHES) -> (M, H, W)."""
    chosen = default
    for slot in range(MAX_PATCHES):
        chosen = torch.where(inside[slot], values[:, slot, None, None], chosen)
    return chosen


def _look_up(pixels: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
    """Return each pixel from its image: pixels (N, H, W, C), source (M, H, W) -> (M, H, W, C)."""
    height, width, channels = pixels.shape[1:]
    place = torch.arange(height * width, device=pixels.device).view(height, width)
    index = source * (height * width) + place
    return pixels.reshape(-1, channels).index_select(0, index.flatten()).view(*source.shape, channels)


def _region(images: torch.Tensor, image: int, patch: Patch) -> torch.Tensor:
    """Return the patch's part of ``image``, without a copy: (N, C, H, W) -> (C, bottom - top, right - left)."""
    return images[image, :, patch.top : patch.bottom, patch.left : patch.right]
