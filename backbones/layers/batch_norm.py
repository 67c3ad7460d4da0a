"""Batch normalization over another set of images than the micro-batch: groups of it, or those of all processes."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn

from backbones.layers.fold import PLAIN_NORMS
from backbones.layers.recomputed.function import Norm, norm_merge


class _OwnBatchNorm2d(nn.BatchNorm2d):
    """Batch normalization that computes its own statistics in training; the parameters are those of its base."""

    def norm(self, x: Tensor) -> Norm:
        """Return the normalization of ``x`` in training."""
        raise NotImplementedError

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  (the name of the base class)
        """Normalize; in evaluation as the base does."""
        if not (self.training or self.running_mean is None):
            return super().forward(input)
        require_several_cells(input)
        return norm_merge(input, self.norm(input))


class GroupedBatchNorm2d(_OwnBatchNorm2d):
    """Batch normalization over groups of ``images`` consecutive images (ghost batches, arXiv 1705.08741).

    The statistics of all groups of an optimizer step are added up in ``pending_mean`` and ``pending_var``. Then
    `PendingStatistics` moves the running statistics once, by the mean over the groups. So they do not depend on the
    division of a step into micro-batches. The buffers for this are not part of a checkpoint.

    Shape:
        (N, C, H, W) -> the same; ``images`` divides N in training

    Raises:
        ValueError: ``images`` does not divide N in training, or a channel has one value in a group.
    """

    images: int
    pending_mean: Tensor
    pending_var: Tensor
    pending_groups: Tensor

    def norm(self, x: Tensor) -> Norm:
        """Return the normalization of ``x`` in training."""
        if len(x) % self.images:
            raise ValueError(f"bn_batch={self.images} must divide the {len(x)} images of a micro-batch")
        require_several_cells(x[: self.images])
        groups = len(x) // self.images
        pending = (self.pending_mean, self.pending_var, self.pending_groups)
        return Norm(self.weight, self.bias, self.eps, *pending, keep=1.0, take=1.0, groups=groups)


class SyncedBatchNorm2d(_OwnBatchNorm2d):
    """Batch normalization over the images of all processes, on any device; each process has equally many.

    ``process_group`` None means all processes, or this one where torch.distributed is not initialized.

    Shape:
        (N, C, H, W) -> the same
    """

    process_group: Any = None

    def norm(self, x: Tensor) -> Norm:  # noqa: ARG002
        """Return the normalization of ``x`` in training."""
        momentum = self.momentum or 0.0
        running = (self.running_mean, self.running_var, self.num_batches_tracked)
        group = self.process_group or (dist.group.WORLD if dist.is_initialized() else None)
        return Norm(self.weight, self.bias, self.eps, *running, 1 - momentum, momentum, process_group=group)


PLAIN_NORMS.update((GroupedBatchNorm2d, SyncedBatchNorm2d))


class _ActivatedBatchNorm2d(BatchNormAct2d):
    """timm's normalization with an activation, on top of one of our normalizations."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalize, drop and activate."""
        own: Any = self
        return own.act(own.drop(_OwnBatchNorm2d.forward(own, x)))


class GroupedBatchNormAct2d(_ActivatedBatchNorm2d, GroupedBatchNorm2d):  # pyright: ignore[reportIncompatibleMethodOverride]
    """`GroupedBatchNorm2d` with the activation of timm's `BatchNormAct2d`."""


class SyncedBatchNormAct2d(_ActivatedBatchNorm2d, SyncedBatchNorm2d):  # pyright: ignore[reportIncompatibleMethodOverride]
    """`SyncedBatchNorm2d` with the activation of timm's `BatchNormAct2d`."""


foreach: Any = torch
"""torch, whose operations on lists of tensors are not part of its typed interface."""

_GROUPED: dict[type[nn.Module], type[nn.Module]] = {
    nn.BatchNorm2d: GroupedBatchNorm2d,
    BatchNormAct2d: GroupedBatchNormAct2d,
}
_SYNCED: dict[type[nn.Module], type[nn.Module]] = {
    nn.BatchNorm2d: SyncedBatchNorm2d,
    BatchNormAct2d: SyncedBatchNormAct2d,
}


def group_batch_norm(model: nn.Module, images: int) -> list[GroupedBatchNorm2d]:
    """Let every batch normalization of ``model`` work on groups of ``images``, and return them.

    Parameters, buffers and their names stay.

    Raises:
        ValueError: ``model`` has a batch normalization of another kind.
    """
    norms = [_convert(norm, name, _GROUPED, "bn_batch") for name, norm in _batch_norms(model)]
    for norm in norms:
        norm.images = images
        norm.register_buffer("pending_mean", torch.zeros_like(norm.running_mean), persistent=False)
        norm.register_buffer("pending_var", torch.zeros_like(norm.running_var), persistent=False)
        norm.register_buffer("pending_groups", torch.zeros_like(norm.num_batches_tracked), persistent=False)
    return norms


def sync_batch_norm(model: nn.Module) -> list[SyncedBatchNorm2d]:
    """Let every batch normalization of ``model`` work on the images of all processes, and return them.

    Raises:
        ValueError: ``model`` has a batch normalization of another kind.
    """
    return [_convert(norm, name, _SYNCED, "sync_bn") for name, norm in _batch_norms(model)]


class PendingStatistics:
    """Statistics that grouped normalizations have added up since the last optimizer step.

    Args:
        norms: the normalizations of one network, each of which sees every image.
    """

    def __init__(self, norms: Sequence[GroupedBatchNorm2d]) -> None:
        self._norms = tuple(norms)

    @torch.no_grad()
    def apply(self) -> None:
        """Move the running statistics by the mean over the groups; call it once after each optimizer step.

        Without any group they stay, as where all normalizations are frozen in evaluation mode.
        """
        if not self._norms:
            return
        groups = self._norms[0].pending_groups
        counted, momentum = groups.to(self._norms[0].pending_mean.dtype), self._momentum
        keep = 1 - momentum * counted.clamp(max=1)
        for running, pending in (("running_mean", "pending_mean"), ("running_var", "pending_var")):
            means = foreach._foreach_div(self._buffers(pending), counted.clamp(min=1))
            foreach._foreach_mul_(self._buffers(running), keep)
            foreach._foreach_add_(self._buffers(running), means, alpha=momentum)
        foreach._foreach_add_(self._buffers("num_batches_tracked"), groups.clamp(max=1))
        self.forget()

    @torch.no_grad()
    def forget(self) -> None:
        """Drop the statistics of an optimizer step that was not finished."""
        if not self._norms:
            return
        for name in ("pending_mean", "pending_var", "pending_groups"):
            foreach._foreach_zero_(self._buffers(name))

    @property
    def _momentum(self) -> float:
        momenta = {norm.momentum for norm in self._norms}
        if len(momenta) != 1:
            raise ValueError(f"bn_batch needs one momentum for all layers, not {sorted(map(str, momenta))}")
        return momenta.pop() or 0.0

    def _buffers(self, name: str) -> list[Tensor]:
        return [getattr(norm, name) for norm in self._norms]


def require_several_cells(x: Tensor) -> None:
    """Raise `ValueError` where a channel has less than two values: there is no variance to measure."""
    if x[:, :1].numel() <= 1:
        raise ValueError(f"Expected more than 1 value per channel when training, got input size {tuple(x.shape)}")


def _batch_norms(model: nn.Module) -> list[tuple[str, nn.Module]]:
    kinds = nn.modules.batchnorm._BatchNorm
    return [(name, module) for name, module in model.named_modules() if isinstance(module, kinds)]


def _convert(norm: Any, name: str, kinds: dict[type[nn.Module], type[nn.Module]], option: str) -> Any:
    """Change the class of a normalization, which keeps its parameters, hooks and place in the network."""
    is_usual = norm.affine and norm.track_running_stats and norm.momentum is not None
    if type(norm) not in kinds or not is_usual:
        raise ValueError(f"{option} cannot change {name}, a {type(norm).__name__} ({norm.extra_repr()})")
    norm.__class__ = kinds[type(norm)]
    return norm
