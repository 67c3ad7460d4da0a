"""Batch normalization over groups of images, and its gradient, in plain torch."""

import torch
from torch import Tensor

from backbones.layers.recomputed.expression import Expression
from backbones.layers.recomputed.pointwise import sum_cells


def measure_groups(x: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """Return mean and biased variance of each channel over each of ``groups`` consecutive groups of images.

    Shape:
        (N, C, H, W) -> (G, C), (G, C), in single precision for maps of half precision
    """
    like = torch.zeros(x.shape[1], dtype=torch.promote_types(x.dtype, torch.float32), device=x.device)
    parts = [torch.ops.aten.batch_norm_update_stats(part, like, like, 0.0) for part in _split(x, groups)]
    means, variances = zip(*parts, strict=True)
    return torch.stack(means), torch.stack(variances)


def update_running(
    running: tuple[Tensor, Tensor, Tensor | None],
    measured: tuple[Tensor, Tensor],
    keep: float,
    take: float,
    *,
    cells: int,
) -> None:
    """Update running mean and variance in place: ``keep * running + take * (sum over the groups)``.

    Args:
        running: mean and variance, (C,), and the counter of the groups.
        measured: means and biased variances, (G, C). Unbiased ones are taken, as in torch.
        keep: factor of the old statistics.
        take: factor of the new ones.
        cells: number of cells of a channel in one group.
    """
    mean, var, tracked = running
    mean.mul_(keep).add_(measured[0].sum(0).to(mean.dtype), alpha=take)
    var.mul_(keep).add_(measured[1].sum(0).to(var.dtype), alpha=take * cells / (cells - 1))
    if tracked is not None:
        tracked.add_(len(measured[0]))


def normalize(e: Expression) -> Tensor:
    """Return the normalized map as a new tensor, or ``e.x`` itself where there is no normalization.

    Shape:
        -> (N, C, H, W)
    """
    if e.mean is None or e.var is None:
        return e.x
    weight, bias = _like_statistics(e.weight, e.mean), _like_statistics(e.bias, e.mean)
    parts = [
        torch.native_batch_norm(part, weight, bias, mean, var, False, 0.0, e.eps)[0]
        for part, mean, var in zip(_split(e.x, len(e.mean)), e.mean, e.var, strict=True)
    ]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def derive_normalization(gradient: Tensor, e: Expression, sums: Tensor | None) -> tuple[Tensor, list[Tensor]]:
    """Return the gradients of the map, and of bias and weight where there is a normalization.

    Args:
        gradient: of the normalized map.
        e: the expression.
        sums: (2, G, C), see `derive`.

    Shape:
        (N, C, H, W) -> (N, C, H, W), (C,), (C,)
    """
    if e.mean is None or e.var is None:
        return gradient, []
    if sums is not None:
        return _derive_from_sums(gradient, e, sums)
    groups, weight = len(e.mean), _like_statistics(e.weight, e.mean)
    triples = [
        torch.ops.aten.native_batch_norm_backward(
            of_part, part, weight, None, None, mean, (var + e.eps).rsqrt(), True, e.eps, [True] * 3
        )
        for of_part, part, mean, var in zip(_split(gradient, groups), _split(e.x, groups), e.mean, e.var, strict=True)
    ]
    of_x, of_weight, of_bias = zip(*triples, strict=True)
    return of_x[0] if groups == 1 else torch.cat(of_x), [_add(of_bias), _add(of_weight)]


def _derive_from_sums(gradient: Tensor, e: Expression, sums: Tensor) -> tuple[Tensor, list[Tensor]]:
    assert e.mean is not None
    assert e.var is not None
    assert e.weight is not None
    inverse = _spread((e.var + e.eps).rsqrt(), e.x)
    standard = (e.x - _spread(e.mean, e.x)) * inverse
    centred = gradient - _spread(sums[0], e.x) - standard * _spread(sums[1], e.x)
    of_x = centred * inverse * e.weight[:, None, None]
    return of_x.to(e.x.dtype), [sum_cells(gradient), sum_cells(gradient * standard)]


def _like_statistics(parameter: Tensor | None, mean: Tensor) -> Tensor | None:
    """Return a parameter in the precision of the statistics: torch takes no other one with them."""
    return None if parameter is None else parameter.to(mean.dtype)


def _spread(rows: Tensor, x: Tensor) -> Tensor:
    """Repeat the rows of groups for their images: (G, C) -> (N, C, 1, 1)."""
    return rows.repeat_interleave(len(x) // len(rows), 0)[:, :, None, None]


def _split(x: Tensor, groups: int) -> tuple[Tensor, ...]:
    return x.split(len(x) // groups)


def _add(parts: tuple[Tensor, ...]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.stack(parts).sum(0)
