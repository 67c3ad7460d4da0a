"""Darknet's update of fusion weights: the momentum is clipped, nothing decays, burn-in may hold them."""

# Torch has no public name for operators on lists of tensors.
# pyright: reportPrivateImportUsage=false

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD

FusionWeight = tuple[nn.Parameter, int]
"""A fusion weight and its hold: darknet leaves it as it is during this many burn-ins."""


class FusionSGD(SGD):
    """SGD that treats the groups made by `fusion_groups` by darknet's rule, all others as torch does.

    Darknet adds up gradients, clips the sum that momentum carries to [-1, 1], and divides by the batch in the update;
    in mean gradients that is a clip to 1 / batch. While the weights are held the sum grows without momentum and
    without clip, and the first step afterwards clips it.
    """

    found_inf: Tensor | None = None
    """1 on the device where the next update must be skipped; torch's fused SGD reads it, too."""

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Update every parameter that has a gradient; a fusion weight only from step ``held_until`` on, from 1."""
        loss = torch.enable_grad()(closure)() if closure else None
        groups = self.param_groups
        for group in groups:
            if "clip" in group:
                self._update_fusion(group)
        self.param_groups = [group for group in groups if "clip" not in group]
        try:
            super().step()
        finally:
            self.param_groups = groups
        return loss

    def _update_fusion(self, group: dict[str, Any]) -> None:
        """Move the fusion weights of a group, in a number of kernels that does not grow with theirs on a GPU."""
        group["updates"] += 1
        parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
        if not parameters:
            return
        carried = [self._carried_by(parameter) for parameter in parameters]
        before = None if self.found_inf is None else _join(parameters + carried)
        torch._foreach_add_(carried, [parameter.grad for parameter in parameters])
        if group["updates"] >= group["held_until"]:
            torch._foreach_clamp_min_(carried, -group["clip"])
            torch._foreach_clamp_max_(carried, group["clip"])
            torch._foreach_sub_(parameters, torch._foreach_mul(carried, group["lr"]))
            torch._foreach_mul_(carried, group["momentum"])
        if before is not None and self.found_inf is not None:
            _restore_where(self.found_inf.bool(), before, parameters + carried)

    def _carried_by(self, parameter: Tensor) -> Tensor:
        """Return the sum that momentum carries, which begins as zeros."""
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        return state["momentum_buffer"]


def _join(tensors: Sequence[Tensor]) -> Tensor:
    """Copy the values of all tensors into one vector."""
    return torch.cat([tensor.flatten() for tensor in tensors])


def _restore_where(condition: Tensor, before: Tensor, tensors: Sequence[Tensor]) -> None:
    """Give tensors their values of ``before`` back where the condition holds, which the host need not know.

    Shape:
        condition (), before (all elements,)
    """
    chosen = torch.where(condition, before, _join(tensors)).split([tensor.numel() for tensor in tensors])
    torch._foreach_copy_(list(tensors), [part.view_as(tensor) for part, tensor in zip(chosen, tensors, strict=True)])


def fusion_groups(
    weights: Iterable[FusionWeight], *, batch_size: int, burn_in: int = 0, burnin_update: int | None = None
) -> list[dict[str, Any]]:
    """Return fusion weights as groups for `FusionSGD`, one for each length of the hold.

    Args:
        weights: the fusion weights; those that are not trained are left out.
        batch_size: images of a step, over which the gradients are means.
        burn_in: steps of burn-in.
        burnin_update: one hold for all of them, in burn-ins; None follows the weights.
    """
    by_hold: dict[int, list[nn.Parameter]] = {}
    for weight, own_hold in weights:
        if weight.requires_grad:
            hold = own_hold if burnin_update is None else burnin_update
            by_hold.setdefault(hold * burn_in, []).append(weight)
    return [
        {"params": parameters, "weight_decay": 0.0, "clip": 1 / batch_size, "held_until": held_until, "updates": 0}
        for held_until, parameters in sorted(by_hold.items())
    ]
