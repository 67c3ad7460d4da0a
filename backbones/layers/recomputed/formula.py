"""The value and the gradients of an expression in plain torch: on a CPU, for NCHW maps, and where Triton is missing."""

import torch
from torch import Tensor

from backbones.layers.recomputed.expression import Expression, Gradients, memory_format_of
from backbones.layers.recomputed.merging import derive_merge, merge
from backbones.layers.recomputed.normalization import derive_normalization, normalize
from backbones.layers.recomputed.pointwise import Pointwise, activate, differentiate, differentiate_slopes


def evaluate(e: Expression) -> Tensor:
    """Return the value of an expression.

    Shape:
        -> (N, C, H, W)
    """
    normalized = normalize(e)
    is_new = normalized is not e.x
    first = activate(normalized, _inner(e))
    return activate(merge(first, e, inplace=is_new), _outer(e))


def derive(gradient: Tensor, e: Expression, sums: Tensor | None = None) -> Gradients:
    """Return the gradients of an expression.

    Args:
        gradient: of the value, (N, C, H, W).
        e: the expression.
        sums: (2, G, C), means over all cells of each group of the gradient of the normalized map, and of its product
            with the standardized map, where the groups have more images than are here. None computes them.
    """
    # The gradient of a concatenation is a slice of channels, on which torch's normalization is ten times slower.
    gradient = gradient.contiguous(memory_format=memory_format_of(e.x))
    normalized = normalize(e)
    is_needed = e.act != "linear" and (len(e.others) > 0 or e.out_act != "linear")
    first = activate(normalized.clone(), _inner(e)) if is_needed else normalized
    of_merged, of_out_slopes = _derive_output(gradient, first, e)
    of_first, of_others, of_shares = derive_merge(of_merged, first, e)
    of_slopes = [differentiate_slopes(of_first, normalized)] if e.act == "prelu" else []
    of_normalized = differentiate(of_first, normalized, _inner(e))
    of_x, of_affine = derive_normalization(of_normalized, e, sums)
    rows = [*of_affine, *of_slopes, *of_shares, *of_out_slopes]
    return Gradients(of_x, _stack(rows, e.x), of_others)


def _stack(rows: list[Tensor], x: Tensor) -> Tensor:
    kind = torch.promote_types(x.dtype, torch.float32)
    return torch.stack([row.to(kind) for row in rows]) if rows else x.new_empty((0, x.shape[1]), dtype=kind)


def _inner(e: Expression) -> Pointwise:
    return Pointwise(e.act, e.slope, e.slopes)


def _outer(e: Expression) -> Pointwise:
    return Pointwise(e.out_act, e.out_slope, e.out_slopes)


def _derive_output(gradient: Tensor, first: Tensor, e: Expression) -> tuple[Tensor, list[Tensor]]:
    """Return the gradients of the merged map and of the slopes of the output's activation."""
    if e.out_act == "linear":
        return gradient, []
    merged = merge(first, e, inplace=False)
    of_slopes = [differentiate_slopes(gradient, merged)] if e.out_act == "prelu" else []
    return differentiate(gradient, merged, _outer(e)), of_slopes
