"""Darknet's update of fusion weights: the momentum is clipped, nothing decays, burn-in may hold them."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim import SGD


class FusionSGD(SGD):
    """SGD that treats the groups made by `fusion_groups` by darknet's rule, all others as torch does.

    Darknet adds up gradients, clips the sum that momentum carries to [-1, 1], and divides by the batch in the update;
    in mean gradients that is a clip to 1 / batch. While the weights are held the sum grows without momentum and
    without clip, and the first step afterwards clips it.
    """

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
            state = self.state[parameter]
            carried = state.setdefault("momentum_buffer", torch.zeros_like(parameter)).add_(parameter.grad)
            if not held:
                carried.clamp_(-group["clip"], group["clip"])
                parameter.sub_(group["lr"] * carried)
                carried.mul_(group["momentum"])


def fusion_groups(
    model: nn.Module, *, batch_size: int, burn_in: int = 0, burnin_update: int | None = None
) -> list[dict[str, Any]]:
    """Return the fusion weights of ``model`` as groups for `FusionSGD`, one for each length of the hold.

    Args:
        model: the network. Its shortcuts name their weights (``fusion_weights``) and may ask for a hold
            (``burnin_update``, in burn-ins).
        batch_size: images of a step, over which the gradients are means.
        burn_in: steps of burn-in.
        burnin_update: one hold for all of them; None follows the shortcuts.
    """
    by_hold: dict[int, list[nn.Parameter]] = {}
    for module in model.modules():
        hold = getattr(module, "burnin_update", 0) if burnin_update is None else burnin_update
        by_hold.setdefault(hold * burn_in, []).extend(_fusion_parameters(module))
    return [
        {"params": parameters, "weight_decay": 0.0, "clip": 1 / batch_size, "held_until": held_until, "updates": 0}
        for held_until, parameters in sorted(by_hold.items())
        if parameters
    ]


def _fusion_parameters(module: nn.Module) -> list[nn.Parameter]:
    named = (getattr(module, name) for name in getattr(module, "fusion_weights", ()))
    return [parameter for parameter in named if parameter is not None and parameter.requires_grad]
