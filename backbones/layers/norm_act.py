"""Batch normalization, activation and merge of a convolution's output: one operation in training, modules otherwise."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.fx
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

from backbones.layers.recomputed.function import DescribesNorm, Norm, norm_merge
from backbones.layers.recomputed.pointwise import LINEAR, as_pointwise


class Unmerged(NamedTuple):
    """Output of a convolution whose normalization and activation become part of the merge that follows."""

    x: Tensor
    """(N, C, H, W)."""
    bn: nn.Module
    """Batch normalization."""
    act: nn.Module
    """Activation after it."""


def norm_act(x: Tensor, bn: nn.Module, act: nn.Module) -> Tensor:
    """Compute ``act(bn(x))``; in training without keeping the normalized map for backward.

    Shape:
        (N, C, H, W) -> the same
    """
    inner = as_pointwise(act)
    norm = _describe(bn, x) if inner is not None and is_recomputable(x, bn, act) else None
    return act(bn(x)) if norm is None or inner is None else norm_merge(x, norm, inner)


def finish(first: Tensor | Unmerged) -> Tensor:
    """Normalize and activate what is unmerged; return any other map as it is.

    Shape:
        (N, C, H, W) -> the same
    """
    return norm_act(*first) if isinstance(first, Unmerged) else first


def merge(
    first: Tensor | Unmerged,
    others: Sequence[Tensor],
    channels: Sequence[int],
    *,
    act: nn.Module,
    shares: Tensor | None = None,
    kind: str = "sum",
) -> Tensor | None:
    """Compute the activated sum or maximum of maps of these channels in one operation; None where it is not possible.

    Shape:
        first (N, channels[0], H, W), others (N, channels[j], H, W) -> (N, channels[0], H, W)

    Raises:
        ValueError: the inputs have another number, width or size.
    """
    x, bn, inner = first if isinstance(first, Unmerged) else (first, None, None)
    outer, pointwise = as_pointwise(act), LINEAR if inner is None else as_pointwise(inner)
    modules = [module for module in (bn, inner, act) if module is not None]
    if outer is None or pointwise is None or not is_recomputable(x, *modules) or not _are_alike(x, others):
        return None
    require_fitting((x, *others), channels, kind=kind)
    norm = None if bn is None else _describe(bn, x)
    if norm is None and (bn is not None or (shares is None and kind == "sum" and outer == LINEAR)):
        return None
    return norm_merge(x, norm, pointwise, others, shares=shares, kind=kind, out_act=outer)


def require_fitting(inputs: Sequence[Tensor], channels: Sequence[int], *, kind: str = "sum") -> None:
    """Raise `ValueError` unless the inputs of a sum or maximum have these channels and one size."""
    name = "maxout" if kind == "max" else "shortcut"
    widths = tuple(x.shape[1] for x in inputs)
    if widths != tuple(channels):
        raise ValueError(f"{name} of {tuple(channels)} channels got inputs of {widths} channels")
    for index, x in enumerate(inputs):
        if x.shape[2:] != inputs[0].shape[2:]:
            raise ValueError(
                f"{name} input {index} is {tuple(x.shape[2:])} high and wide, input 0 is "
                f"{tuple(inputs[0].shape[2:])}: its inputs have one resolution"
            )


def is_recomputable(x: Tensor, *modules: nn.Module) -> bool:
    """Tell whether autograd records this call, no tracer or compiler does, and no hook waits for one of the modules."""
    if not torch.is_grad_enabled() or isinstance(x, torch.fx.Proxy) or _is_transformed():
        return False
    has_several_cells = x.dim() == 4 and x.numel() > x.shape[1]
    return has_several_cells and not any(map(has_hooks, modules)) and not _watches_all()


def has_hooks(module: nn.Module) -> bool:
    """Tell whether something waits for a call of this module."""
    return bool(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    )


def set_recompute(model: nn.Module, *, on: bool) -> None:
    """Choose whether the layers of ``model`` recompute in backward what is cheap, or keep it as torch does."""
    for module in model.modules():
        if hasattr(module, "recompute"):
            setattr(module, "recompute", on)  # noqa: B010  (torch types attributes of modules as tensors)


def _is_transformed() -> bool:
    """Tell whether a compiler, a tracer or a transform of `torch.func` runs the modules: none knows our gradients."""
    is_traced = torch._C._get_tracing_state() is not None
    return torch.compiler.is_compiling() or is_traced or torch._C._are_functorch_transforms_active()


def _watches_all() -> bool:
    return bool(
        torch_module._global_forward_hooks
        or torch_module._global_forward_pre_hooks
        or torch_module._global_backward_hooks
        or torch_module._global_backward_pre_hooks
    )


def _are_alike(x: Tensor, others: Sequence[Tensor]) -> bool:
    return all(other.dtype == x.dtype and other.device == x.device for other in others)


def _describe(bn: Any, x: Tensor) -> Norm | None:
    """Return the normalization that a module in training computes; None for a module that is not known."""
    if not bn.training:
        return None
    if isinstance(bn, DescribesNorm):
        return bn.norm(x)
    if type(bn) is not nn.BatchNorm2d or not bn.affine or bn.running_mean is None or bn.momentum is None:
        return None
    running = (bn.running_mean, bn.running_var, bn.num_batches_tracked)
    return Norm(bn.weight, bn.bias, bn.eps, *running, keep=1 - bn.momentum, take=bn.momentum)
