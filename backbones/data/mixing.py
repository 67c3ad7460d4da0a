"""Mosaic, cutmix and label smoothing, as darknet does them: pure geometry first, then one paste for both.

Everything random is drawn on the CPU from (seed, epoch, position), so a GPU is never waited for. Both mixes are
lists of patches: rectangles of another image of the same micro-batch, pasted at the place they come from.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from backbones.data.loader import Batch, to_device
from backbones.data.order import uniforms
from backbones.recipe import Mixing

GROUP = 4
"""Consecutive positions that one coin decides for (darknet: the images of one of 32 loader threads)."""

BLOCK = 16
"""Consecutive positions among which partners are chosen."""

DRAWS = 8
"""Uniform numbers per image: cutmix or mosaic, two sizes, two places, three partners."""


class Patch(NamedTuple):
    """Rows [top, bottom) and columns [left, right) of image ``partner`` replace those of image ``image``."""

    image: int
    partner: int
    top: int
    left: int
    bottom: int
    right: int

    @property
    def area(self) -> int:
        """Number of pixels."""
        return (self.bottom - self.top) * (self.right - self.left)


@dataclass(frozen=True)
class Mixer:
    """Maps a Batch to (images, soft targets).

    A coin of probability ``mixing.prob`` per group of four consecutive positions decides whether all four are mixed;
    then each is cutmix or mosaic, with even chances where both are on. Partners are other images of the same
    micro-batch, before any mixing, inside blocks of 16 consecutive positions (a shorter rest joins the last block,
    fewer than 16 images are one block). So where each process's micro-batch is a multiple of 16, the mixed batch is
    the same for any number of processes. darknet instead loads and augments fresh images as partners; here every
    image is read once, and an image's partners are in the same batch.

    The images of the batch are overwritten.
    """

    mixing: Mixing
    classes: int
    """Number of classes K."""
    seed: int

    def __call__(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Return mixed images and targets that sum to 1.

        Shape: images (N, C, H, W), labels (N,) -> the same images, targets (N, K) float32.
        """
        height, width = batch.images.shape[-2:]
        targets = smooth_labels(batch.labels, self.classes, self.mixing.smoothing)
        patches = self.patches(batch.epoch, batch.position, len(batch.labels), size=(height, width))
        return paste_(batch.images, patches), blend(targets, patches, height * width)

    def patches(self, epoch: int, position: int, count: int, *, size: tuple[int, int]) -> list[Patch]:
        """Draw the patches of positions [position, position + count) for images of ``size`` (height, width)."""
        coins = group_coins(self.seed, epoch, position, count)
        draws = uniforms(self.seed, epoch, position, position + count, DRAWS, stream="mix")
        partners = choose_partners(draws[:, 5:8])
        share = cutmix_share(self.mixing)
        patches: list[Patch] = []
        for image in np.flatnonzero(coins < self.mixing.prob if share is not None else []).tolist():
            mix = cutmix if draws[image, 0] < share else mosaic
            patches.extend(mix(image, partners[image], draws[image, 1:5], size))
        return patches


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


def paste_(images: torch.Tensor, patches: Sequence[Patch]) -> torch.Tensor:
    """Overwrite the patches, each with its partner as it was before; the patches of one image must not overlap.

    Only the partners that are themselves changed are copied: less memory traffic than a second batch.

    Shape: (N, C, H, W), any memory format -> the same tensor.
    """
    changed = {patch.image for patch in patches}
    before = {partner: images[partner].clone() for partner in {p.partner for p in patches} & changed}
    for image, partner, top, left, bottom, right in patches:
        source = before.get(partner, images[partner])
        images[image, :, top:bottom, left:right] = source[:, top:bottom, left:right]
    return images


def blend(targets: torch.Tensor, patches: Sequence[Patch], area: int) -> torch.Tensor:
    """Return the mean of the targets of each image's parts, weighted by their share of ``area`` pixels.

    Shape: (N, K) -> (N, K).
    """
    partners, shares = _parts(patches, len(targets), area)
    if not patches:
        return targets
    parts = targets[to_device(torch.from_numpy(partners), targets.device)]
    weights = to_device(torch.from_numpy(shares), targets.device).to(targets.dtype)
    return (parts * weights[:, :, None]).sum(dim=1)


def group_coins(seed: int, epoch: int, position: int, count: int) -> np.ndarray:
    """Return the uniform number of each position's group of four; groups are counted from the start of the epoch.

    Shape: (count,).
    """
    groups = np.arange(position, position + count) // GROUP
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


def cutmix_share(mixing: Mixing) -> float | None:
    """Return the share of cutmix among mixed images, None where nothing is mixed."""
    shares = {(True, True): 0.5, (True, False): 1.0, (False, True): 0.0}
    return shares.get((mixing.cutmix, mixing.mosaic))


def _integer(u: float, low: int, high: int) -> int:
    """Return the integer of [low, high], both included, that the uniform number u in [0, 1) stands for."""
    return low + int(u * (max(low, high) - low + 1))


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
        shares[patch.image, slot] = patch.area / area
        shares[patch.image, 0] -= patch.area / area
        used[patch.image] += 1
    return partners, shares
