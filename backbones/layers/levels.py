"""Feature maps of several sizes: what the necks of detectors share."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from backbones.layers.activation import ActivationName
from backbones.layers.conv import ConvNormAct


class PerLevel(nn.Module):
    """One layer for each level, for example `Spp` on the smallest map only.

    Args:
        layers: layer of each level, large maps first; ``nn.Identity()`` leaves its level as it is.

    Shape:
        for each level j: (N, C_j, H_j, W_j) -> the result of ``layers[j]``

    Raises:
        ValueError: a call has another number of maps.
    """

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Run each layer on its level."""
        require_levels("PerLevel", len(self.layers), features)
        return [layer(x) for layer, x in zip(self.layers, features, strict=True)]


def create_lateral(channels: int, width: int, *, act: ActivationName = "linear") -> nn.Module:
    """Build the 1x1 convolution that gives a level ``width`` channels; an identity if it has them already.

    Shape:
        (N, channels, H, W) -> (N, width, H, W)
    """
    return nn.Identity() if channels == width else ConvNormAct(channels, width, kernel=1, act=act)


def alternating_convs(channels: int, width: int, count: int, *, act: ActivationName) -> nn.Sequential:
    """Build YOLOv3's chain of ``count`` convolutions: 1x1 of ``width`` and 3x3 of twice ``width`` in turn, 1x1 first.

    Shape:
        (N, channels, H, W) -> (N, width, H, W) for an odd count
    """
    widths = [channels, *(width if index % 2 == 0 else 2 * width for index in range(count))]
    kernels = [1 if index % 2 == 0 else 3 for index in range(count)]
    pairs = zip(widths, widths[1:], kernels, strict=False)
    return nn.Sequential(*(ConvNormAct(before, after, kernel=kernel, act=act) for before, after, kernel in pairs))


def enlarge(x: Tensor, like: Tensor) -> Tensor:
    """Repeat cells until ``x`` has the size of ``like``: darknet's ``[upsample]`` where that is twice as large.

    Shape:
        x (N, C, h, w), like (N, any, H, W) -> (N, C, H, W)
    """
    return F.interpolate(x, size=like.shape[2:], mode="nearest")


def require_levels(neck: str, levels: int, features: Sequence[Tensor]) -> None:
    """Raise `ValueError` unless there is one map for each level."""
    if len(features) != levels:
        raise ValueError(f"the {neck} has {levels} levels, not {len(features)}")
