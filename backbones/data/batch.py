"""One micro-batch on the device, and the copy to the device."""

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
    """Position of the first image in the epoch; in validation, its row. The others follow it."""


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return the tensor on the device, without waiting for the copy; a GPU copies from pinned memory."""
    if device.type == "cuda" and not tensor.is_cuda:
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
