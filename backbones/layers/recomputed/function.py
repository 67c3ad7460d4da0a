"""The operation with its gradient for autograd: keeps the convolution's output and vectors of channels only."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, cast, runtime_checkable

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

import backbones.layers.recomputed.operators  # noqa: F401  (registers the operators)
from backbones.layers.recomputed.merging import fit_channels
from backbones.layers.recomputed.normalization import update_running
from backbones.layers.recomputed.pointwise import LINEAR, Pointwise

_OPERATORS = torch.ops.backbones


class Norm(NamedTuple):
    """Batch normalization in training."""

    weight: Tensor
    """(C,), factor after the normalization."""
    bias: Tensor
    """(C,), summand after the normalization."""
    eps: float
    """Summand of the variance."""
    running_mean: Tensor | None
    """(C,), becomes ``keep * running_mean + take * (sum of the means of the groups)``."""
    running_var: Tensor | None
    """(C,), the same with unbiased variances."""
    tracked: Tensor | None
    """Counter of the groups."""
    keep: float
    """Factor of the old statistics."""
    take: float
    """Factor of the new ones."""
    groups: int = 1
    """Groups of consecutive images that are normalized apart from each other."""
    process_group: Any = None
    """Processes whose images are normalized together; None: those of this process only."""


@runtime_checkable
class DescribesNorm(Protocol):
    """Module that says itself how it normalizes in training."""

    def norm(self, x: Tensor) -> Norm:
        """Return the normalization of ``x``."""
        ...


def norm_merge(
    x: Tensor,
    norm: Norm | None,
    act: Pointwise = LINEAR,
    others: Sequence[Tensor] = (),
    *,
    shares: Tensor | None = None,
    kind: str = "sum",
    out_act: Pointwise = LINEAR,
) -> Tensor:
    """Compute ``out_act(merge(act(norm(x)), others))`` and keep only what others keep anyway, and ``x``.

    Backward computes the normalized, activated and merged maps once more.

    Args:
        x: output of a convolution.
        norm: batch normalization in training; None leaves it out, and ``act`` must be linear then.
        act: activation of the normalized map.
        others: further inputs of the sum or maximum. Of a wider one the first channels are used; a narrower one takes
            part in the first channels only.
        shares: factors of the sum, (1 + others, 1 or C); None is the plain sum.
        kind: ``sum`` or ``max``.
        out_act: activation of the merged map.

    Shape:
        x (N, C, H, W), others (N, C_j, H, W) -> (N, C, H, W)
    """
    weight, bias = (None, None) if norm is None else (norm.weight, norm.bias)
    slopes = (act.slopes, out_act.slopes)
    return cast(Tensor, _NormMerge.apply((norm, act, kind, out_act), x, weight, bias, shares, *slopes, *others))


class _NormMerge(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, options: Any, *tensors: Any) -> Tensor:
        norm, _, kind, out_act = options
        x, weight, bias, shares, slopes, out_slopes, *others = tensors
        mean, var = (None, None) if norm is None else _measure(x, norm)
        ctx.options = options
        ctx.widths = [other.shape[1] for other in others]
        is_kept = shares is not None or kind == "max" or out_act.name != "linear"
        ctx.save_for_backward(x, mean, var, weight, bias, shares, slopes, out_slopes, *(others if is_kept else ()))
        return _OPERATORS.norm_merge(
            *_arguments(options, x, mean, var, weight, bias, shares, slopes, out_slopes, *others)
        )

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        norm, _, kind, out_act = ctx.options
        saved = ctx.saved_tensors  # gradient checkpointing gives them once only
        _, _, _, weight, bias, shares, slopes, out_slopes, *_ = saved
        of_x, rows, of_others = _derive(gradients[0], norm, _arguments(ctx.options, *saved))
        if kind == "sum" and shares is None:
            of_sum = of_others[0] if of_others else gradients[0] if out_act.name == "linear" else of_x
            of_others = [fit_channels(of_sum, width) for width in ctx.widths]
        taken = iter(rows)
        of_bias = _shape(taken, bias)
        of_weight = _shape(taken, weight)
        of_slopes = _shape(taken, slopes)
        of_shares = _shape_shares(taken, shares)
        return None, of_x, of_weight, of_bias, of_shares, of_slopes, _shape(taken, out_slopes), *of_others


def _arguments(options: Any, x: Any, mean: Any, var: Any, *rest: Any) -> tuple[Any, ...]:
    """Return the arguments of the operators."""
    norm, act, kind, out_act = options
    weight, bias, shares, slopes, out_slopes, *others = rest
    eps = 0.0 if norm is None else norm.eps
    inner = (act.name, act.slope, slopes)
    return x, mean, var, weight, bias, eps, *inner, others, shares, kind, out_act.name, out_act.slope, out_slopes


def _derive(gradient: Tensor, norm: Norm | None, arguments: tuple[Any, ...]) -> tuple[Tensor, Tensor, list[Tensor]]:
    if norm is None or norm.process_group is None:
        return _OPERATORS.norm_merge_backward(gradient, *arguments)
    rows = _OPERATORS.norm_merge_reduce(gradient, *arguments)
    sums = rows[:2] / arguments[0][:, 0].numel()
    dist.all_reduce(sums, group=norm.process_group)
    means = (sums / dist.get_world_size(norm.process_group))[:, None]
    of_x, of_others = _OPERATORS.norm_merge_apply(gradient, means, *arguments)
    return of_x, rows, of_others


def _measure(x: Tensor, norm: Norm) -> tuple[Tensor, Tensor]:
    """Return the statistics of a map and update the running ones."""
    running = (norm.running_mean, norm.running_var, norm.tracked)
    if norm.process_group is None:
        return _OPERATORS.batch_statistics(x, norm.groups, *running, norm.keep, norm.take)
    mean, var = _combine(_OPERATORS.batch_statistics(x, 1, None, None, None, 1.0, 0.0), norm.process_group)
    if norm.running_mean is not None and norm.running_var is not None:
        cells = x[:, 0].numel() * dist.get_world_size(norm.process_group)
        update_running(
            (norm.running_mean, norm.running_var, norm.tracked), (mean, var), norm.keep, norm.take, cells=cells
        )
    return mean, var


def _combine(local: tuple[Tensor, Tensor], group: Any) -> tuple[Tensor, Tensor]:
    """Return the statistics of the images of all processes, which have equally many.

    Shape:
        (1, C), (1, C) -> the same
    """
    own = torch.stack(local)
    gathered = [torch.empty_like(own) for _ in range(dist.get_world_size(group))]
    dist.all_gather(gathered, own, group=group)
    means, variances = torch.stack(gathered).unbind(1)
    mean = means.mean(0)
    return mean, (variances + (means - mean).square()).mean(0)


def _shape(rows: Any, parameter: Tensor | None) -> Tensor | None:
    """Return the next row as the gradient of a parameter of one value, or of one for each channel."""
    if parameter is None:
        return None
    row = next(rows)
    return (row if parameter.numel() == row.numel() else row.sum()[None]).to(parameter.dtype)


def _shape_shares(rows: Any, shares: Tensor | None) -> Tensor | None:
    if shares is None:
        return None
    stacked = torch.stack([next(rows) for _ in shares])
    return (stacked if shares.shape[1] == stacked.shape[1] else stacked.sum(1, keepdim=True)).to(shares.dtype)
