"""The weighted sum or the maximum of feature maps, and their gradients, in plain torch."""

import torch
import torch.nn.functional as F
from torch import Tensor

from backbones.layers.recomputed.expression import Expression
from backbones.layers.recomputed.pointwise import sum_cells


def merge(first: Tensor, e: Expression, *, inplace: bool) -> Tensor:
    """Return the sum or maximum of ``first`` and the other inputs of the expression.

    Of a wider input the first channels take part; a narrower one takes part in the first channels only.

    Args:
        first: the normalized and activated map.
        e: the expression.
        inplace: let the result overwrite ``first``.

    Shape:
        first (N, C, H, W) -> the same
    """
    total = first if inplace else first.clone(memory_format=torch.preserve_format)
    if e.shares is not None:
        total.mul_(_factor(e.shares, 0, total))
    for index, x in enumerate(e.others, start=1):
        channels = min(x.shape[1], total.shape[1])
        part, added = total[:, :channels], x[:, :channels]
        if e.kind == "max":
            part.copy_(torch.maximum(part, added))
        elif e.shares is None:
            part.add_(added)
        else:
            part.addcmul_(added, _factor(e.shares, index, total)[:, :channels])
    return total


def derive_merge(gradient: Tensor, first: Tensor, e: Expression) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Return the gradients of ``first``, of the other inputs, and of each share for each channel.

    Of equal inputs of a maximum, the first one gets the gradient. For a plain sum see `Gradients`.

    Shape:
        gradient (N, C, H, W), first the same -> (N, C, H, W), (N, C_j, H, W) for each, (C,) for each share
    """
    if e.kind == "max":
        of_inputs = _derive_maximum(gradient, first, e.others)
        return of_inputs[0], of_inputs[1:], []
    inputs = [first, *e.others]
    if e.shares is None:
        return gradient, [gradient] if e.has_own_gradient_of_merge else [], []
    shares = [_factor(e.shares, index, first) for index in range(len(inputs))]
    of_inputs = [_fill(_cut(gradient, x) * _cut(share, x), x) for x, share in zip(inputs, shares, strict=True)]
    return of_inputs[0], of_inputs[1:], [_correlate(gradient, x) for x in inputs]


def _derive_maximum(gradient: Tensor, first: Tensor, others: list[Tensor]) -> list[Tensor]:
    inputs = [fit_channels(x, first.shape[1], fill=-torch.inf) for x in (first, *others)]
    largest = inputs[0]
    for x in inputs[1:]:
        largest = torch.maximum(largest, x)
    free, gradients = torch.ones_like(first, dtype=torch.bool), []
    for x, given in zip(inputs, (first, *others), strict=True):
        wins = free & ((x == largest) | x.isnan())
        free &= ~wins
        # A factor 0 would make NaN of an infinite gradient.
        gradients.append(_fill(torch.where(_cut(wins, given), _cut(gradient, given), 0), given))
    return gradients


def _factor(shares: Tensor, index: int, like: Tensor) -> Tensor:
    """Return a share as (1 or C, 1, 1) in the type of the maps; (1, 1, 1) is expanded to all channels."""
    return shares[index].to(like.dtype)[:, None, None].expand(like.shape[1], 1, 1)[None]


def _correlate(gradient: Tensor, x: Tensor) -> Tensor:
    """Return for each channel the sum over the cells of gradient * x."""
    return _fill_row(sum_cells(_cut(gradient, x) * _cut(x, gradient)), gradient.shape[1])


def _fill_row(row: Tensor, channels: int) -> Tensor:
    return F.pad(row, (0, channels - len(row))) if len(row) < channels else row


def _cut(x: Tensor, like: Tensor) -> Tensor:
    return x[:, : like.shape[1]]


def _fill(x: Tensor, like: Tensor) -> Tensor:
    return fit_channels(x, like.shape[1])


def fit_channels(x: Tensor, channels: int, *, fill: float = 0.0) -> Tensor:
    """Cut or fill the channels of a map.

    Shape:
        (N, C, H, W) -> (N, channels, H, W)
    """
    if x.shape[1] < channels:
        return F.pad(x, (0, 0, 0, 0, 0, channels - x.shape[1]), value=fill)
    return x[:, :channels]
