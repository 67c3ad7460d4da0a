"""Bytes to network inputs, on the device: floats, colours, normalization, erasing."""

import numpy as np
import torch

from backbones.data.colour import darknet_matrices, darknet_shifts, jitter_matrices, recolour
from backbones.data.darknet_image import distort
from backbones.data.erasing import erase_, erase_boxes
from backbones.data.view import View


class Finish:
    """Maps uint8 (N, size, size, 3) RGB to float32 (N, 3, size, size) in channels_last memory, normalized.

    Done here rather than in a backend, images travel as bytes, both backends have the same colours to the last bit,
    and a GPU does the work. What is random comes from the draws of the plan.
    """

    def __init__(self, view: View, device: torch.device) -> None:
        self.view = view
        self.augment = view.augment
        # One row of pixels, since three numbers alone would make a loop of three
        self.mean = torch.tensor(view.preprocess.mean).repeat(view.size).to(device)
        self.std = torch.tensor(view.preprocess.std).repeat(view.size).to(device)
        self.scale = 255 * self.std
        self.offset = 255 * self.mean

    def __call__(self, pixels: torch.Tensor, draws: np.ndarray) -> torch.Tensor:
        """Return the images of a batch; ``draws`` (N, DRAWS) are used in training only."""
        images = pixels.to(torch.float32)
        if self.changes_colours:
            images = self._recoloured(images.mul_(1 / 255), draws)
            images.view(-1, len(self.mean)).sub_(self.mean).div_(self.std)
        else:
            images.view(-1, len(self.mean)).sub_(self.offset).div_(self.scale)
        images = images.permute(0, 3, 1, 2)
        if self.augment and self.augment.augmentation == "inception" and self.augment.inception.erasing:
            erase_(images, erase_boxes(draws, self.augment.inception, size=self.view.size))
        return images

    @property
    def changes_colours(self) -> bool:
        """Whether the augmentation touches colours at all."""
        if self.augment is None:
            return False
        ours, theirs = self.augment.darknet, self.augment.inception
        if self.augment.augmentation == "inception":
            return theirs.color_jitter > 0
        return ours.hue > 0 or ours.saturation < 1 or ours.exposure < 1

    def _recoloured(self, images: torch.Tensor, draws: np.ndarray) -> torch.Tensor:
        assert self.augment is not None
        if self.augment.augmentation == "inception":
            return recolour(images, to_device(torch.from_numpy(jitter_matrices(draws, self.augment)), images.device))
        if self.augment.darknet.hsv == "matrix":
            return recolour(images, to_device(torch.from_numpy(darknet_matrices(draws, self.augment)), images.device))
        shifts = to_device(torch.from_numpy(darknet_shifts(draws, self.augment)), images.device)
        return distort(images, *shifts.to(images.dtype).unbind(dim=1), dim=-1)


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy to the device without waiting for it: from pinned memory where it is a GPU."""
    if device.type == "cuda" and not tensor.is_cuda:
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
