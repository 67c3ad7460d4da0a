"""Moving average of the weights: timm's, without a walk over the network at each step."""

# Torch has no public name for operators on lists of tensors.
# pyright: reportPrivateImportUsage=false

from typing import Any, NamedTuple

import torch
from timm.utils.model_ema import ModelEmaV3
from torch import Tensor, nn

Place = tuple[dict[str, Any], str]
"""A module's own dictionary, and the name of a parameter or buffer in it."""

LERP_TYPES = (torch.float32, torch.float64)
"""Types that are averaged by one rule in every version of timm. bfloat16 is rounded at random by some."""


class Places(NamedTuple):
    """Where the tensors of a network and of its average are, in the same order."""

    model: nn.Module
    averaged: tuple[list[Place], list[Place]]
    """Floating-point tensors: of the average, of the network."""
    counted: tuple[list[Place], list[Place]]
    """All others, such as BatchNorm's count of batches."""


class MovingAverage(ModelEmaV3):
    """Average that equals timm's ``ModelEmaV3`` to the bit and has its state_dict.

    timm collects two state_dicts at each step, which takes milliseconds for a deep network. Here the places of the
    tensors are found once, in a constant number of kernels on a GPU. A tensor that takes the place of another is seen.
    """

    places: Places | None = None

    def apply_update_(self, model: nn.Module, decay: float) -> None:
        """Move the average to ``model`` by 1 - ``decay``, and copy what is not a floating-point number."""
        if self.places is None or self.places.model is not model:
            self.places = find_places(self.module, model)
        if not self.places.averaged[0]:
            super().apply_update_(model, decay)
            return
        own, others = map(take, self.places.averaged)
        torch._foreach_lerp_(own, others, weight=1.0 - decay)
        counted, others = map(take, self.places.counted)
        if counted:
            torch._foreach_copy_(counted, others)


def find_places(average: nn.Module, model: nn.Module) -> Places:
    """Return the places of the tensors of both; none where timm's own update must do, as for bfloat16 weights."""
    pairs = list(zip(list_places(average), list_places(model), strict=True))
    types = {holder[name].dtype for pair in pairs for holder, name in pair if holder[name].is_floating_point()}
    is_complete = len(pairs) == len(average.state_dict()) == len(model.state_dict())
    if not is_complete or len(types) != 1 or not types <= set(LERP_TYPES):
        return Places(model, ([], []), ([], []))
    averaged = [pair for pair in pairs if pair[0][0][pair[0][1]].is_floating_point()]
    counted = [pair for pair in pairs if not pair[0][0][pair[0][1]].is_floating_point()]
    return Places(model, _unzip(averaged), _unzip(counted))


def list_places(model: nn.Module) -> list[Place]:
    """Return where the parameters and buffers of a state_dict are; a shared module counts as often as it is used."""
    return [
        (holder, name)
        for _, module in model.named_modules(remove_duplicate=False)
        for holder in (module._parameters, module._buffers)
        for name, tensor in holder.items()
        if tensor is not None and name not in module._non_persistent_buffers_set
    ]


def take(places: list[Place]) -> list[Tensor]:
    """Return the tensors that are in the places now."""
    return [holder[name] for holder, name in places]


def _unzip(pairs: list[tuple[Place, Place]]) -> tuple[list[Place], list[Place]]:
    return [own for own, _ in pairs], [other for _, other in pairs]
