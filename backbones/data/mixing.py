"""Mosaic, cutmix, mixup, blur and label smoothing as in darknet: pure geometry, and one paste for all.

Everything random is drawn on the CPU from (seed, epoch, position), so the host never waits for a GPU. Every kind of
mixing is a list of patches: rectangles of another image of the same micro-batch, pasted at the same position.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torchvision.transforms.v2.functional import gaussian_blur

from backbones.data.batch import Batch, to_device
from backbones.data.paste import Paste, Patch, paste_
from backbones.dataset.random_numbers import uniforms
from backbones.errors import UserError
from backbones.recipe import Mixing

GROUP_SIZE = 4
"""Consecutive positions that share one coin (in darknet: the images of one of 32 loader threads)."""

BLOCK_SIZE = 16
"""Consecutive positions among which partners are chosen."""

DRAWS_PER_IMAGE = 8
"""Uniform numbers: the kind, two sizes, two positions, three partners."""

BLUR_PROBABILITY = 0.25
"""Share of the images that are blurred, mixed or not."""


Kind = Callable[[int, np.ndarray, np.ndarray, tuple[int, int]], list[Patch]]
"""Kind of mixing: (image, its three partners, four uniform numbers, (height, width)) -> patches."""


@dataclass(frozen=True)
class Mixer:
    """Map from a Batch to (images, soft targets).

    With ``sampling="group"``, a coin of probability ``mixing.prob`` decides for four consecutive positions whether all
    are mixed, and each image draws its kind and position. With ``sampling="batch"``, the images of a step share one
    coin, kind and position. All kinds that are on have the same probability.

    Partners are other images of the same micro-batch, before any mixing, inside blocks of 16 consecutive positions (a
    shorter rest joins the last block; fewer than 16 images are one block). So if the micro-batch of a process is a
    multiple of 16, the mixed batch is the same for any number of processes. darknet loads and augments other images as
    partners; here every image is read once, and its partners are in the same batch.

    The images of the batch are overwritten.
    """

    mixing: Mixing
    classes: int
    """Number of classes K."""
    seed: int
    batch_size: int
    """Images per optimizer step, over all processes and accumulation steps."""
    paste: Paste = paste_
    """Pastes the patches."""

    def __call__(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Return mixed images and targets that sum to 1.

        Shape: images (N, C, H, W), labels (N,) -> the same images, targets (N, K) float32.
        """
        count, (height, width) = len(batch.labels), batch.images.shape[-2:]
        targets = smooth_labels(batch.labels, self.classes, self.mixing.smoothing)
        patches = self.patches(batch.epoch, batch.position, count, size=(height, width))
        self.paste(batch.images, patches)
        if self.mixing.blur:
            blur_(batch.images, self.choose_blurred(batch.epoch, batch.position, count), self.mixing.blur)
        return batch.images, blend(targets, patches, height * width)

    def patches(self, epoch: int, position: int, count: int, *, size: tuple[int, int]) -> list[Patch]:
        """Draw the patches of positions [position, position + count) for images of ``size`` (height, width)."""
        by_step = self.mixing.sampling == "batch"
        coins = group_coins(self.seed, epoch, position, count, size=self.batch_size if by_step else GROUP_SIZE)
        draws = uniforms(self.seed, epoch, position, position + count, DRAWS_PER_IMAGE, stream="mix")
        partners = choose_partners(draws[:, 5:8])
        if by_step:
            first = position - position % self.batch_size
            draws[:] = uniforms(self.seed, epoch, first, first + 1, DRAWS_PER_IMAGE, stream="mix")
        on = kinds(self.mixing)
        patches: list[Patch] = []
        for image in np.flatnonzero(coins < self.mixing.prob if on else []).tolist():
            mix = on[int(draws[image, 0] * len(on))]
            patches.extend(mix(image, partners[image], draws[image, 1:5], size))
        return patches

    def choose_blurred(self, epoch: int, position: int, count: int) -> list[int]:
        """Draw which images of positions [position, position + count) are blurred."""
        draws = uniforms(self.seed, epoch, position, position + count, 1, stream="blur")
        return np.flatnonzero(draws[:, 0] < BLUR_PROBABILITY).tolist()


def smooth_labels(labels: torch.Tensor, classes: int, eps: float) -> torch.Tensor:
    """Return targets: 1 - eps for the label, eps / (classes - 1) elsewhere (as in darknet; torch divides by classes).

    Shape: (N,) int64 -> (N, classes) float32, each row summing to 1.
    """
    eps = eps if classes > 1 else 0.0
    targets = torch.full((len(labels), classes), eps / max(1, classes - 1), device=labels.device)
    return targets.scatter_(1, labels[:, None], 1 - eps)


def cutmix(image: int, partners: np.ndarray, draws: np.ndarray, size: tuple[int, int]) -> list[Patch]:
    """Return one patch whose sides are integers of 30 % to 80 % of the image's, at any position inside.

    Shape: partners (1 or more,), draws (4,): height, width, top, left.
    """
    tall, wide = (_integer(u, int(0.3 * side), int(0.8 * side)) for u, side in zip(draws[:2], size, strict=True))
    top = _integer(draws[2], 0, size[0] - tall - 1)
    left = _integer(draws[3], 0, size[1] - wide - 1)
    return [Patch(image, int(partners[0]), top, left, top + tall, left + wide)]


def mosaic(image: int, partners: np.ndarray, draws: np.ndarray, size: tuple[int, int]) -> list[Patch]:
    """Return the top right, bottom left and bottom right quadrants, which meet at 20 % to 80 % of each side.

    Shape: partners (3,), draws (2 or more,): row and column where they meet.
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
    """Return one half-transparent patch over the whole image: darknet's mixup is the mean of two images.

    Shape: partners (1 or more,).
    """
    return [Patch(image, int(partners[0]), 0, 0, *size, weight=0.5)]


def kinds(mixing: Mixing) -> list[Kind]:
    """Return the kinds of mixing that are on. Their order must not change: a seed depends on it."""
    every = ((cutmix, mixing.cutmix), (mosaic, mixing.mosaic), (mixup, mixing.mixup))
    return [kind for kind, is_on in every if is_on]


def blur_(images: torch.Tensor, chosen: Sequence[int], side: int) -> torch.Tensor:
    """Blur the ``chosen`` images with a Gaussian of side x side pixels; borders are mirrored without the edge.

    sigma = 0.3 * ((side - 1) / 2 - 1) + 0.8 pixels is torchvision's default, and OpenCV's for more than 7 pixels. Two
    one-dimensional passes take a third of the time of a square kernel on a CPU.

    Shape: (N, C, H, W), any memory format -> the same tensor. Raises UserError where the images are too small.
    """
    height, width = images.shape[-2:]
    if side // 2 >= min(height, width):
        raise UserError(
            f"mixing.blur={side} is too large for images of {height} x {width} pixels.\n"
            f"Use mixing.blur={2 * min(height, width) - 1} or less, or 0 for none."
        )
    if chosen:
        index = to_device(torch.tensor(chosen), images.device)
        images[index] = gaussian_blur(gaussian_blur(images[index], [side, 1]), [1, side])
    return images


def blend(targets: torch.Tensor, patches: Sequence[Patch], area: int) -> torch.Tensor:
    """Return the mean of the targets of each image's parts, weighted by their share in its ``area`` pixels.

    Shape: (N, K) -> (N, K).
    """
    partners, shares = _list_parts(patches, len(targets), area)
    if not patches:
        return targets
    parts = targets[to_device(torch.from_numpy(partners), targets.device)]
    weights = to_device(torch.from_numpy(shares), targets.device).to(targets.dtype)
    return (parts * weights[:, :, None]).sum(dim=1)


def group_coins(seed: int, epoch: int, position: int, count: int, *, size: int = GROUP_SIZE) -> np.ndarray:
    """Return for each position the uniform number of its group of ``size``; groups are counted from the epoch's start.

    Shape: (count,).
    """
    groups = np.arange(position, position + count) // size
    coins = uniforms(seed, epoch, int(groups[0]), int(groups[-1]) + 1, 1, stream="coin")
    return coins[groups - groups[0], 0]


def choose_partners(draws: np.ndarray) -> np.ndarray:
    """Return partners of each image from its block, other than the image; a single image is its own partner.

    Shape: (N, M) uniform -> (N, M) int64 in [0, N).
    """
    count = len(draws)
    image = np.arange(count)
    block = np.minimum(image // BLOCK_SIZE, max(1, count // BLOCK_SIZE) - 1)
    start = block * BLOCK_SIZE
    length = np.where(block == block[-1], count - start, BLOCK_SIZE)
    steps = 1 + np.floor(draws * (length - 1)[:, None]).astype(np.int64)
    return start[:, None] + ((image - start)[:, None] + steps) % length[:, None]


def _integer(u: float, low: int, high: int) -> int:
    """Map a uniform number u in [0, 1) to an integer of [low, high], both included."""
    return low + int(u * (max(low, high) - low + 1))


def _list_parts(patches: Sequence[Patch], count: int, area: int) -> tuple[np.ndarray, np.ndarray]:
    """Return up to four parts per image, itself and its patches, with their shares.

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
