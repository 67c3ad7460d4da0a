"""One micro-batch on the device, and the way there."""

from typing import NamedTuple

import torch


class Batch(NamedTuple):
    """One micro-batch on the device.

    Shape: images (N, 3, H, W) float32 in channels_last memory, normalized; labels (N,) int64.
    """

    images: torch.Tensor
    labels: torch.Tensor
    epoch: int
    position: int
    """Training: position in the epoch of the first image, the others follow. Validation: the first row."""


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy to the device without waiting for it: from pinned memory where it is a GPU."""
    if device.type == "cuda" and not tensor.is_cuda:
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
