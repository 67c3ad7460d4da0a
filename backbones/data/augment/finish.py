"""From bytes to network inputs, on the device: floats, colours, normalization, erasing."""

from collections.abc import Iterator

import numpy as np
import torch

from backbones.data.augment.colour import darknet_matrices, darknet_shifts, jitter_matrices, recolour
from backbones.data.augment.erasing import erase_, erase_boxes
from backbones.data.augment.hsv import distort
from backbones.data.augment.view import View
from backbones.data.batch import to_device

IMAGES_PER_CHUNK = 4
"""Images that a CPU recolours at a time, so that intermediate results stay in its cache."""


class Finish:
    """Map from uint8 (N, size, size, 3) RGB to float32 (N, 3, size, size) in channels_last memory, normalized.

    Since this happens after the loader, images are copied as bytes, all loaders have the same colours to the last bit,
    and a GPU does the work. Everything random comes from the draws of the plan.
    """

    def __init__(self, view: View, device: torch.device) -> None:
        self.view = view
        self.augment = view.augment
        preprocess = view.preprocess
        self.is_normalized = preprocess.mean != (0, 0, 0) or preprocess.std != (1, 1, 1)
        # Repeated for a whole row of pixels: a loop over three numbers would be slow
        self.mean = torch.tensor(preprocess.mean).repeat(view.size).to(device)
        self.std = torch.tensor(preprocess.std).repeat(view.size).to(device)

    def __call__(self, pixels: torch.Tensor, draws: np.ndarray) -> torch.Tensor:
        """Return the images of a batch; ``draws`` (N, DRAWS) are used in training only."""
        images = self._recolour(pixels, draws) if self.changes_colours else pixels.to(torch.float32).mul_(1 / 255)
        if self.is_normalized:
            images.view(-1, len(self.mean)).sub_(self.mean).div_(self.std)
        images = images.permute(0, 3, 1, 2)
        if self.augment and self.augment.augmentation == "inception" and self.augment.inception.erasing:
            erase_(images, erase_boxes(draws, self.augment.inception, size=self.view.size))
        return images

    @property
    def changes_colours(self) -> bool:
        """True when the augmentation changes colours."""
        if self.augment is None:
            return False
        if self.augment.augmentation == "inception":
            return self.augment.inception.color_jitter > 0
        ranges = self.augment.darknet
        return ranges.hue > 0 or ranges.saturation != 1 or ranges.exposure != 1

    def _recolour(self, pixels: torch.Tensor, draws: np.ndarray) -> torch.Tensor:
        """Return images in [0, 1] from bytes.

        Shape: uint8 (N, size, size, 3) -> float32 (N, size, size, 3).
        """
        assert self.augment is not None
        images = torch.empty(pixels.shape, dtype=torch.float32, device=pixels.device)
        if self.augment.augmentation == "darknet" and self.augment.darknet.hsv == "exact":
            for part, shifts, out in _split(pixels, darknet_shifts(draws, self.augment), images):
                out.copy_(distort(part.mul_(1 / 255), *shifts.unbind(dim=1), dim=-1))
            return images
        is_jitter = self.augment.augmentation == "inception"
        matrices = (jitter_matrices if is_jitter else darknet_matrices)(draws, self.augment)
        matrices[:, :, :3] /= 255
        for part, own, out in _split(pixels, matrices, images):
            recolour(part, own, out=out)
        return images


def _split(
    pixels: torch.Tensor, numbers: np.ndarray, images: torch.Tensor
) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Yield chunks: pixels as floats, their numbers on the same device, and their part of ``images``."""
    on_device = to_device(torch.from_numpy(numbers.astype(np.float32)), pixels.device)
    step = IMAGES_PER_CHUNK if pixels.device.type == "cpu" else max(1, len(pixels))
    for part, own, out in zip(pixels.split(step), on_device.split(step), images.split(step), strict=True):
        yield part.to(torch.float32), own, out
