"""Maxout: the maximum of several channels in place of their sum (darknet's ``[route]`` and ``maxpool_depth``)."""

from collections.abc import Sequence

import torch
import torch.fx
import torch.nn.functional as F
from torch import Tensor, nn

from backbones.layers.norm_act import Unmerged, finish, merge, require_fitting

_LINEAR = nn.Identity()


def maxout(x: Tensor, out_channels: int) -> Tensor:
    """Return in channel g the maximum of the input channels g, g + out_channels, g + 2 out_channels, ...

    This is darknet's ``[maxpool] maxpool_depth=1``. If ``out_channels`` does not divide the channels of the input, the
    last output channels have one input channel less. Of equal inputs the first gets the gradient.

    Shape:
        (N, C, H, W) -> (N, out_channels, H, W) with C >= out_channels

    Raises:
        ValueError: ``out_channels`` is outside [1, C]: an output channel would have no input.
    """
    if not 1 <= out_channels <= x.shape[1]:
        raise ValueError(f"out_channels={out_channels} must lie in [1, {x.shape[1]}], the channels of the input")
    return _take_larger(x.split(out_channels, 1))


@torch.fx.wrap
def max_fitting(inputs: Sequence[Tensor], channels: Sequence[int]) -> Tensor:
    """Return the element-wise maximum of inputs that must have these channels and one size.

    It is one node of a graph that `torch.fx` traces, because a trace has no shapes to check.

    Shape:
        (N, channels[j], H, W) for each j -> (N, channels[0], H, W)

    Raises:
        ValueError: the inputs have another number, width or size.
    """
    require_fitting(inputs, channels, kind="max")
    return _take_larger(inputs)


class Maxout(nn.Module):
    """Element-wise maximum of feature maps of one resolution.

    All inputs have the width of the first one, but the last may be narrower. It then takes part in the first channels
    only. A narrower input elsewhere would shift the channels after it.

    Shape:
        (N, channels[j], H, W) for each j -> (N, channels[0], H, W)

    Raises:
        ValueError: there are fewer than two inputs, or their widths do not fit.
    """

    recompute = True

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.channels = tuple(channels)
        width, *others = self.channels or (0,)
        if not others or any(other != width for other in others[:-1]) or others[-1] > width:
            raise ValueError(
                f"channels={self.channels}: maxout takes two or more inputs of one width; only the last may be narrower"
            )

    def forward(self, first: Tensor | Unmerged, *others: Tensor, shares: None = None) -> Tensor:  # noqa: ARG002
        """Return the maximum of the inputs, which have the order of ``channels``.

        The normalization of a first input that is `Unmerged` becomes part of the maximum.
        """
        merged = merge(first, others, self.channels, kind="max", act=_LINEAR) if self.recompute else None
        return max_fitting((finish(first), *others), self.channels) if merged is None else merged

    def extra_repr(self) -> str:
        """Show the widths in ``print(model)``."""
        return f"{self.channels}"


def _take_larger(inputs: Sequence[Tensor]) -> Tensor:
    """Return the maximum, one pair after the other, so that the memory order of the maps stays."""
    largest = inputs[0]
    for x in inputs[1:]:
        missing = largest.shape[1] - x.shape[1]
        filled = F.pad(x, (0, 0, 0, 0, 0, missing), value=-torch.inf) if missing else x
        # torch.maximum would divide the gradient between equal inputs.
        largest = torch.where((filled > largest) | filled.isnan(), filled, largest)
    return largest
