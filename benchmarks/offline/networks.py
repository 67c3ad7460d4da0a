"""Networks that are measured without a GPU: ours, and timm's of the same shape with the same activation."""

from dataclasses import dataclass, field
from typing import Any

import timm
import torch
from torch import Tensor, nn

import backbones

SIZE = 256
"""Pixels of a side of an image."""


@dataclass(frozen=True)
class Contender:
    """Network with its options."""

    model: str
    """Name in timm's registry."""
    options: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments of `timm.create_model`."""
    is_ours: bool = True

    def create(self) -> nn.Module:
        """Build the network for training, in channels_last."""
        network = timm.create_model(self.model, num_classes=1000, **self.options)
        return network.to(memory_format=torch.channels_last).train()  # pyright: ignore[reportCallIssue]


OURS = {name: Contender(name) for name in backbones.list_models()}
"""All networks of this package, with their own activation, which is Mish."""

PEERS = {
    f"timm {model} {act}": Contender(model, {"act_layer": act}, is_ours=False)
    for model in ("cspresnext50", "cspdarknet53")
    for act in ("mish", "leaky_relu")
}
"""timm's networks of the same shape, with our activation and with their own."""

CONTENDERS = OURS | PEERS


def create_images(count: int, size: int = SIZE) -> Tensor:
    """Return images without values, (count, 3, size, size) in channels_last."""
    return torch.empty(count, 3, size, size).to(memory_format=torch.channels_last)
