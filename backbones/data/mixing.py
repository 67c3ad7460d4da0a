"""Mosaic, cutmix, mixup, blur and label smoothing, as darknet does them: pure geometry first, then one paste for all.

Everything random is drawn on the CPU from (seed, epoch, position), so a GPU is never waited for. Every kind of mixing
is a list of patches: rectangles of another image of the same micro-batch, laid over the place they come from.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torchvision.transforms.v2.functional import gaussian_blur

from backbones.data.batch import Batch, to_device
from backbones.dataset.random_numbers import uniforms
from backbones.errors import UserError
from backbones.recipe import Mixing

GROUP = 4
"""Consecutive positions that one coin decides for (darknet: the images of one of 32 loader threads)."""

BLOCK = 16
"""Consecutive positions among which partners are chosen."""

DRAWS = 8
"""Uniform numbers per image: the kind, two sizes, two places, three partners."""

BLURRED = 0.25
"""Probability that an image is blurred, mixed or not."""


class Patch(NamedTuple):
    """Rows [top, bottom) and columns [left, right) of image ``partner``, laid over those of image ``image``."""

    image: int
    partner: int
    top: int
    left: int
    bottom: int
    right: int
    weight: float = 1.0
    """Share of the partner in these pixels; ``image`` keeps the rest."""

    @property
    def area(self) -> int:
        """Number of pixels."""
        return (self.bottom - self.top) * (self.right - self.left)


Kind = Callable[[int, np.ndarray, np.ndarray, tuple[int, int]], list[Patch]]
"""A kind of mixing: (image, its three partners, four uniform numbers, (height, width)) -> patches."""


@dataclass(frozen=True)
class Mixer:
    """Maps a Batch to (images, soft targets).

    With ``sampling="group"`` a coin of probability ``mixing.prob`` decides for four consecutive positions whether all
    are mixed, and each image draws its kind and place. With ``sampling="batch"`` the images of a step share one coin,
    kind and place (a micro-batch lies within one step). The kinds that are on have even chances.

    Partners are other images of the same micro-batch, before any mixing, inside blocks of 16 consecutive positions (a
    shorter rest joins the last block, fewer than 16 images are one block). So where each process's micro-batch is a
    multiple of 16, the mixed batch is the same for any number of processes. darknet instead loads and augments fresh
    images as partners; here every image is read once, and an image's partners are in the same batch.

    The images of the batch are overwritten.
    """

    mixing: Mixing
    classes: int
    """Number of classes K."""
    seed: int
    batch_size: int
    """Images per optimizer step, over all processes and accumulation steps."""

    def __call__(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Return mixed images and targets that sum to 1.

        Shape: images (N, C, H, W), labels (N,) -> the same images, targets (N, K) float32.
        """
        count, (height, width) = len(batch.labels), batch.images.shape[-2:]
        targets = smooth_labels(batch.labels, self.classes, self.mixing.smoothing)
        patches = self.patches(batch.epoch, batch.position, count, size=(height, width))
        paste_(batch.images, patches)
        if self.mixing.blur:
            blur_(batch.images, self.blurred(batch.epoch, batch.position, count), self.mixing.blur)
        return batch.images, blend(targets, patches, height * width)

    def patches(self, epoch: int, position: int, count: int, *, size: tuple[int, int]) -> list[Patch]:
        """Draw the patches of positions [position, position + count) for images of ``size`` (height, width)."""
        by_step = self.mixing.sampling == "batch"
        coins = group_coins(self.seed, epoch, position, count, group=self.batch_size if by_step else GROUP)
        draws = uniforms(self.seed, epoch, position, position + count, DRAWS, stream="mix")
        partners = choose_partners(draws[:, 5:8])
        if by_step:
            first = position - position % self.batch_size
            draws[:] = uniforms(self.seed, epoch, first, first + 1, DRAWS, stream="mix")
        on = kinds(self.mixing)
        patches: list[Patch] = []
        for image in np.flatnonzero(coins < self.mixing.prob if on else []).tolist():
            mix = on[int(draws[image, 0] * len(on))]
            patches.extend(mix(image, partners[image], draws[image, 1:5], size))
        return patches

    def blurred(self, epoch: int, position: int, count: int) -> list[int]:
        """Draw which images of positions [position, position + count) are blurred."""
        draws = uniforms(self.seed, epoch, position, position + count, 1, stream="blur")
        return np.flatnonzero(draws[:, 0] < BLURRED).tolist()


def smooth_labels(labels: torch.Tensor, classes: int, eps: float) -> torch.Tensor:
    """Return targets with 1 - eps for the label and eps / (classes - 1) elsewhere (darknet; torch divides by classes).

    Shape: (N,) int64 -> (N, classes) float32, each row summing to 1.
    """
    eps = eps if classes > 1 else 0.0
    targets = torch.full((len(labels), classes), eps / max(1, classes - 1), device=labels.device)
    return targets.scatter_(1, labels[:, None], 1 - eps)


def cutmix(image: int, partners: np.ndarray, draws: np.ndarray, size: tuple[int, int]) -> list[Patch]:
    """Return one patch whose sides are integers of 30 % to 80 % of the image's, wherever it fits.

    Shape: partners (1 or more,), draws (4,): height, width, top, left.
    """
    tall, wide = (_integer(u, int(0.3 * side), int(0.8 * side)) for u, side in zip(draws[:2], size, strict=True))
    top = _integer(draws[2], 0, size[0] - tall - 1)
    left = _integer(draws[3], 0, size[1] - wide - 1)
    return [Patch(image, int(partners[0]), top, left, top + tall, left + wide)]


def mosaic(image: int, partners: np.ndarray, draws: np.ndarray, size: tuple[int, int]) -> list[Patch]:
    """Return the top right, bottom left and bottom right quadrants; the crossing is at 20 % to 80 % of each side.

    Shape: partners (3,), draws (2 or more,): crossing row, crossing column.
    """
    height, width = size
    row, column = (_integer(u, int(0.2 * side), int(0.8 * side)) for u, side in zip(draws[:2], size, strict=True))
    first, second, third = (int(partner) for partner in partners)
    return [
        Patch(image, first, 0, column, row, width),
        Patch(image, second, row, 0, height, column),
        Patch(image, third, row, column, height, width),
    ]


def mixup(image: int, partners: np.ndarray, _: np.ndarray, size: tuple[int, int]) -> list[Patch]:
    """Return one patch, half transparent, over the whole image: darknet's mixup is the mean of two images.

    Shape: partners (1 or more,).
    """
    return [Patch(image, int(partners[0]), 0, 0, *size, weight=0.5)]


def kinds(mixing: Mixing) -> list[Kind]:
    """Return the kinds of mixing that are on; their order is part of what a seed stands for."""
    every = ((cutmix, mixing.cutmix), (mosaic, mixing.mosaic), (mixup, mixing.mixup))
    return [kind for kind, is_on in every if is_on]


def paste_(images: torch.Tensor, patches: Sequence[Patch]) -> torch.Tensor:
    """Overwrite the patches, each with its partner as it was before; the patches of one image must not overlap.

    Only what an earlier patch would change is copied first: less memory traffic than a second batch.

    Shape: (N, C, H, W), any memory format -> the same tensor.
    """
    changed: set[int] = set()
    sources: list[torch.Tensor] = []
    for patch in patches:
        source = _region(images, patch.partner, patch)
        sources.append(source.clone() if patch.partner in changed else source)
        changed.add(patch.image)
    for patch, source in zip(patches, sources, strict=True):
        place = _region(images, patch.image, patch)
        if patch.weight == 1:
            place.copy_(source)
        else:
            place.lerp_(source, patch.weight)
    return images


def blur_(images: torch.Tensor, rows: Sequence[int], side: int) -> torch.Tensor:
    """Blur images ``rows`` with a Gaussian of side x side pixels, its border mirrored without the edge (reflect-101).

    sigma = 0.3 * ((side - 1) / 2 - 1) + 0.8 pixels is torchvision's default, and OpenCV's for more than 7 pixels. Two
    one-dimensional passes: a square kernel costs a CPU three times as much.

    Shape: (N, C, H, W), any memory format -> the same tensor. Raises UserError where the images are too small.
    """
    height, width = images.shape[-2:]
    if side // 2 >= min(height, width):
        raise UserError(
            f"mixing.blur={side} is too large for images of {height} x {width} pixels.\n"
            f"Use mixing.blur={2 * min(height, width) - 1} or less, or 0 for none."
        )
    if rows:
        index = to_device(torch.tensor(rows), images.device)
        images[index] = gaussian_blur(gaussian_blur(images[index], [side, 1]), [1, side])
    return images


def blend(targets: torch.Tensor, patches: Sequence[Patch], area: int) -> torch.Tensor:
    """Return the mean of the targets of each image's parts, weighted by their share in its ``area`` pixels.

    Shape: (N, K) -> (N, K).
    """
    partners, shares = _parts(patches, len(targets), area)
    if not patches:
        return targets
    parts = targets[to_device(torch.from_numpy(partners), targets.device)]
    weights = to_device(torch.from_numpy(shares), targets.device).to(targets.dtype)
    return (parts * weights[:, :, None]).sum(dim=1)


def group_coins(seed: int, epoch: int, position: int, count: int, *, group: int = GROUP) -> np.ndarray:
    """Return the uniform number that ``group`` consecutive positions share; groups count from the epoch's start.

    Shape: (count,).
    """
    groups = np.arange(position, position + count) // group
    coins = uniforms(seed, epoch, int(groups[0]), int(groups[-1]) + 1, 1, stream="coin")
    return coins[groups - groups[0], 0]


def choose_partners(draws: np.ndarray) -> np.ndarray:
    """Return partners other than the image itself, from its block; a lone image is its own partner.

    Shape: (N, M) uniform -> (N, M) int64 in [0, N).
    """
    count = len(draws)
    image = np.arange(count)
    block = np.minimum(image // BLOCK, max(1, count // BLOCK) - 1)
    start = block * BLOCK
    length = np.where(block == block[-1], count - start, BLOCK)
    steps = 1 + np.floor(draws * (length - 1)[:, None]).astype(np.int64)
    return start[:, None] + ((image - start)[:, None] + steps) % length[:, None]


def _integer(u: float, low: int, high: int) -> int:
    """Return the integer of [low, high], both included, that the uniform number u in [0, 1) stands for."""
    return low + int(u * (max(low, high) - low + 1))


def _region(images: torch.Tensor, image: int, patch: Patch) -> torch.Tensor:
    """Return a view of the patch's rows and columns in ``image``.

    Shape: (N, C, H, W) -> (C, bottom - top, right - left).
    """
    return images[image, :, patch.top : patch.bottom, patch.left : patch.right]


def _parts(patches: Sequence[Patch], count: int, area: int) -> tuple[np.ndarray, np.ndarray]:
    """Return up to four parts per image: itself and its patches, with their shares.

    Shape: partners (count, 4) int64, shares (count, 4) float64, each row summing to 1.
    """
    partners = np.repeat(np.arange(count)[:, None], 4, axis=1)
    shares = np.zeros((count, 4))
    shares[:, 0] = 1
    used = np.ones(count, dtype=int)
    for patch in patches:
        slot = used[patch.image]
        partners[patch.image, slot] = patch.partner
        share = patch.weight * patch.area / area
        shares[patch.image, slot] = share
        shares[patch.image, 0] -= share
        used[patch.image] += 1
    return partners, shares
