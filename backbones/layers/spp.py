"""SPP: max pools of several sizes beside each other, as in yolov3-spp and YOLOv4."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from backbones.layers.activation import ActivationName
from backbones.layers.levels import alternating_convs
from backbones.layers.pooling import darknet_max_pool2d


def spatial_pyramid_pool(x: Tensor, sizes: Sequence[int] = (5, 9, 13)) -> Tensor:
    """Concatenate max pools of stride 1 and the map itself: darknet's ``[maxpool]`` and ``[route]``.

    Args:
        x: feature map.
        sizes: heights and widths of the windows, which are odd. The last one comes first in the result, as in
            darknet's cfgs, and the map itself comes last.

    Shape:
        (N, C, H, W) -> (N, (len(sizes) + 1) * C, H, W)
    """
    return torch.cat([*(darknet_max_pool2d(x, size, 1) for size in reversed(sizes)), x], 1)


class Spp(nn.Module):
    """Spatial pyramid pooling between two chains of three convolutions, for the smallest level of a detector.

    The chains are those of yolov3-spp, csresnext50-panet-spp and YOLOv4: 1x1, 3x3, 1x1. Darknet issue #4662 has an SPP
    in all its detectors.

    Args:
        in_channels: channels of the map.
        width: channels of the pools and of the result; 512 in the cfgs. The 3x3 convolutions have twice as many.
        sizes: heights and widths of the windows.
        act: activation of the convolutions; ``leaky`` in the cfgs.

    Shape:
        (N, in_channels, H, W) -> (N, width, H, W)

    Raises:
        ValueError: a size is even or below 1, or there is none.
    """

    def __init__(
        self, in_channels: int, width: int, *, sizes: Sequence[int] = (5, 9, 13), act: ActivationName = "mish"
    ) -> None:
        super().__init__()
        if not sizes or any(size < 1 or size % 2 == 0 for size in sizes):
            raise ValueError(f"sizes={tuple(sizes)}: an SPP has at least one window, and odd ones only")
        self.sizes = tuple(sizes)
        self.before = alternating_convs(in_channels, width, 3, act=act)
        self.after = alternating_convs((len(self.sizes) + 1) * width, width, 3, act=act)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve, pool, convolve."""
        return self.after(spatial_pyramid_pool(self.before(x), self.sizes))

    def extra_repr(self) -> str:
        """Show the windows in ``print(model)``."""
        return f"sizes={self.sizes}"
