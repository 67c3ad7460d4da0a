"""Maxout: the maximum of several channels in place of their sum (darknet's ``[route]`` and ``maxpool_depth``)."""

from collections.abc import Sequence

import torch
import torch.fx
import torch.nn.functional as F
from torch import Tensor, nn


def maxout(x: Tensor, out_channels: int) -> Tensor:
    """Return in channel g the maximum of the input channels g, g + out_channels, g + 2 out_channels, ...

    This is darknet's ``[maxpool] maxpool_depth=1``. If ``out_channels`` does not divide the channels of the input, the
    last output channels have one input channel less.

    Shape:
        (N, C, H, W) -> (N, out_channels, H, W) with C >= out_channels

    Raises:
        ValueError: ``out_channels`` is outside [1, C]: an output channel would have no input.
    """
    if not 1 <= out_channels <= x.shape[1]:
        raise ValueError(f"out_channels={out_channels} must lie in [1, {x.shape[1]}], the channels of the input")
    missing = -x.shape[1] % out_channels
    full = F.pad(x, (0, 0, 0, 0, 0, missing), value=-torch.inf) if missing else x
    # max over a dimension gives the gradient to one of equal inputs; amax would divide it among them.
    return full.unflatten(1, (-1, out_channels)).max(1).values


@torch.fx.wrap
def max_fitting(inputs: Sequence[Tensor], channels: Sequence[int]) -> Tensor:
    """Compute `maxout` of inputs that must have these channels.

    It is one node of a graph that `torch.fx` traces, because a trace has no shapes to check.

    Shape:
        (N, channels[j], H, W) for each j -> (N, channels[0], H, W)

    Raises:
        ValueError: the inputs have another number or width.
    """
    widths = tuple(x.shape[1] for x in inputs)
    if widths != tuple(channels):
        raise ValueError(f"maxout of {tuple(channels)} channels got inputs of {widths} channels")
    return maxout(torch.cat(tuple(inputs), 1), channels[0])


class Maxout(nn.Module):
    """Element-wise maximum of feature maps of one resolution.

    All inputs have the width of the first one, but the last may be narrower. It then takes part in the first channels
    only. A narrower input elsewhere would shift the channels after it.

    Shape:
        (N, channels[j], H, W) for each j -> (N, channels[0], H, W)

    Raises:
        ValueError: there are fewer than two inputs, or their widths do not fit.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.channels = tuple(channels)
        width, *others = self.channels or (0,)
        if not others or any(other != width for other in others[:-1]) or others[-1] > width:
            raise ValueError(
                f"channels={self.channels}: maxout takes two or more inputs of one width; only the last may be narrower"
            )

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the maximum of the inputs, which have the order of ``channels``."""
        return max_fitting(inputs, self.channels)

    def extra_repr(self) -> str:
        """Show the widths in ``print(model)``."""
        return f"{self.channels}"
