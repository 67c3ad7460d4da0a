"""Maxout: the largest of several channels in place of their sum (darknet's ``[route]`` and ``maxpool_depth``)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def maxout(x: Tensor, out_channels: int) -> Tensor:
    """Output channel g is the largest of the input channels g, g + out_channels, g + 2 out_channels, ...

    The channels need not divide evenly: then the last outputs choose among one channel less. This is darknet's
    ``[maxpool] maxpool_depth=1``.

    Shape:
        (N, C, H, W) -> (N, out_channels, H, W) with C >= out_channels

    Raises:
        ValueError: ``out_channels`` lies outside [1, C]: an output would have nothing to choose from.
    """
    if not 1 <= out_channels <= x.shape[1]:
        raise ValueError(f"out_channels={out_channels} must lie in [1, {x.shape[1]}], the channels of the input")
    missing = -x.shape[1] % out_channels
    full = F.pad(x, (0, 0, 0, 0, 0, missing), value=-torch.inf) if missing else x
    # max over a dimension sends the gradient to one winner; amax would split it among equals.
    return full.unflatten(1, (-1, out_channels)).max(1).values


class Maxout(nn.Module):
    """The element-wise maximum of feature maps of one resolution.

    The first input defines the width. All have that width but the last, which may be narrower and then takes part
    in the first channels only; anywhere else it would shift the channels behind it.

    Shape:
        (N, channels[j], H, W) for each j -> (N, channels[0], H, W)

    Raises:
        ValueError: fewer than two inputs, or widths that do not fit; when called, inputs of other widths.
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
        """Take the largest of the inputs, given in the order of ``channels``."""
        widths = tuple(x.shape[1] for x in inputs)
        if widths != self.channels:
            raise ValueError(f"maxout of {self.channels} channels got inputs of {widths} channels")
        return maxout(torch.cat(inputs, 1), self.channels[0])

    def extra_repr(self) -> str:
        """Show the widths in ``print(model)``."""
        return f"{self.channels}"
