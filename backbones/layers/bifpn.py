"""BiFPN (arXiv 1911.09070): feature maps of several sizes, mixed top-down and bottom-up with weighted shortcuts."""

from collections.abc import Sequence
from functools import partial
from typing import Literal

import torch.fx
from torch import Tensor, nn

from backbones.layers.activation import ActivationName
from backbones.layers.conv import ConvNormAct
from backbones.layers.levels import create_lateral, enlarge, require_levels
from backbones.layers.old_names import accept_old_names
from backbones.layers.pooling import darknet_max_pool2d
from backbones.layers.shortcut import WeightedShortcut, WeightsType

FusionNormalization = Literal["relu", "softmax", "sigmoid"]

torch.fx.wrap("darknet_max_pool2d")


class BiFpn(nn.Module):
    """One weighted BiFPN block, for P3 to P5 of a detector or any other levels.

    Top-down, each level adds the enlarged result of the next smaller level. Bottom-up, each level adds its input, its
    top-down result and the shrunk result of the next larger level. Every sum is a `WeightedShortcut`, followed by a 3x3
    convolution. Maps are enlarged by repeating cells and shrunk by a 3x3 max pool of stride 2, to exactly the size of
    the next level, so any size of image is accepted. Blocks can be stacked.

    Args:
        in_channels: channels of each level, large maps first; at least two levels. A level of another width than
            ``width`` first passes a linear 1x1 convolution.
        width: channels of every result.
        normalization: rule that turns fusion weights into shares: ``relu`` is the paper's fast fusion, ``softmax`` its
            slow one.
        weights_type: one weight for each input, or one for each input and channel.
        act: activation of the 3x3 convolutions.

    Shape:
        for each level j: (N, in_channels[j], H_j, W_j) -> (N, width, H_j, W_j), H_j+1 = ceil(H_j / 2)

    Raises:
        ValueError: there are fewer than two levels, or a call has another number of maps.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        width: int,
        *,
        normalization: FusionNormalization = "relu",
        weights_type: WeightsType = "per_feature",
        act: ActivationName = "mish",
    ) -> None:
        super().__init__()
        if len(in_channels) < 2:
            raise ValueError(f"in_channels={tuple(in_channels)}: a BiFPN mixes at least two levels")

        def node(inputs: int) -> _Node:
            shortcut = WeightedShortcut([width] * inputs, weights_type=weights_type, normalization=normalization)
            return _Node(shortcut, ConvNormAct(width, width, kernel=3, act=act))

        inner = len(in_channels) - 2
        self.laterals = nn.ModuleList(create_lateral(channels, width) for channels in in_channels)
        self.top_down = nn.ModuleList(node(2) for _ in range(inner + 1))
        self.bottom_up = nn.ModuleList([*(node(3) for _ in range(inner)), node(2)])
        accept_old_names(self)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Mix the levels. Inputs and results have large maps first."""
        require_levels("BiFPN", len(self.laterals), features)
        inputs = [lateral(x) for lateral, x in zip(self.laterals, features, strict=True)]
        return self._run_bottom_up(inputs, self._run_top_down(inputs))

    def _run_top_down(self, inputs: list[Tensor]) -> list[Tensor]:
        """Return the results of all levels except the smallest."""
        results = [inputs[-1]]
        for node, x in zip(reversed(self.top_down), reversed(inputs[:-1]), strict=True):
            results.insert(0, node(x, enlarge(results[0], x)))
        return results[:-1]

    def _run_bottom_up(self, inputs: list[Tensor], top_down: list[Tensor]) -> list[Tensor]:
        """Return the results of all levels. The largest one keeps its top-down result."""
        results, inner = [top_down[0]], [(x,) for x in top_down[1:]]
        for node, x, between in zip(self.bottom_up, inputs[1:], [*inner, ()], strict=True):
            results.append(node(x, *between, darknet_max_pool2d(results[-1], 3, 2)))
        return results


class StackedBiFpn(nn.Sequential):
    """Row of `BiFpn` blocks, each on the results of the one before; three in darknet53-bifpn3 of darknet issue #4662.

    Args:
        in_channels: channels of each level, large maps first; at least two levels.
        width: channels of every result.
        blocks: number of blocks.
        normalization: see `BiFpn`.
        weights_type: see `BiFpn`.
        act: see `BiFpn`.

    Shape:
        for each level j: (N, in_channels[j], H_j, W_j) -> (N, width, H_j, W_j), H_j+1 = ceil(H_j / 2)

    Raises:
        ValueError: ``blocks`` is below 1; and as for `BiFpn`.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        width: int,
        *,
        blocks: int = 3,
        normalization: FusionNormalization = "relu",
        weights_type: WeightsType = "per_feature",
        act: ActivationName = "mish",
    ) -> None:
        if blocks < 1:
            raise ValueError(f"blocks={blocks} must be at least 1")
        rows = [in_channels, *[[width] * len(in_channels)] * (blocks - 1)]
        create = partial(BiFpn, width=width, normalization=normalization, weights_type=weights_type, act=act)
        super().__init__(*map(create, rows))


class _Node(nn.Module):
    """Weighted sum of maps of one size, then a convolution."""

    def __init__(self, shortcut: WeightedShortcut, conv: ConvNormAct) -> None:
        super().__init__()
        self.shortcut = shortcut
        self.conv = conv

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.conv(self.shortcut(*inputs))
