"""Darknet's update of fusion weights: the momentum is clipped, nothing decays, burn-in may hold them."""

from collections.abc import Callable, Iterable
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
        group["updates"] += 1
        held = group["updates"] < group["held_until"]
        for parameter in group["params"]:
            if parameter.grad is None:
                continue
            carried = self.state[parameter].setdefault("momentum_buffer", torch.zeros_like(parameter))
            before = parameter.clone(), carried.clone()
            carried.add_(parameter.grad)
            if not held:
                carried.clamp_(-group["clip"], group["clip"])
                parameter.sub_(group["lr"] * carried)
                carried.mul_(group["momentum"])
            if self.found_inf is not None:
                for tensor, old in zip((parameter, carried), before, strict=True):
                    tensor.copy_(torch.where(self.found_inf.bool(), old, tensor))


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
