"""Darknet's own update of fusion weights: the momentum is clipped, nothing decays, burn-in may hold them."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim import SGD


class FusionSGD(SGD):
    """SGD that treats the groups made by `fusion_group` by darknet's rule, all others as torch does.

    Darknet adds up gradients, clips the sum that momentum carries to [-1, 1], and divides by the batch in the update;
    in mean gradients that is a clip to 1 / batch. While the weights are held the sum grows without momentum and
    without clip, and the first step afterwards clips it.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Update every parameter that has a gradient."""
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


def fusion_group(parameters: list[nn.Parameter], *, batch_size: int, held_until: int = 0) -> dict[str, Any]:
    """Describe a group of fusion weights for `FusionSGD`.

    Args:
        parameters: the fusion weights.
        batch_size: images of a step, over which the gradients are means.
        held_until: number of the first step, counted from 1, that changes them: burnin_update times burn_in.
    """
    clip = 1 / batch_size
    return {"params": parameters, "weight_decay": 0.0, "clip": clip, "held_until": held_until, "updates": 0}


def fusion_parameters(model: nn.Module) -> list[nn.Parameter]:
    """Return the trainable parameters that a module lists under the name ``fusion_weights``."""
    named = (getattr(module, name) for module in model.modules() for name in getattr(module, "fusion_weights", ()))
    return [parameter for parameter in named if parameter is not None and parameter.requires_grad]
