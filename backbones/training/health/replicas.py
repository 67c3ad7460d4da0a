"""Replicas: after each step all processes must have the same parameters, to the last bit."""

from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from backbones.training.health.monitor import Every, Finding, Row

_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""Integer type of as many bytes."""
_FACTOR = 0x9E3779B97F4A7C1
"""Odd number that makes each place of a tensor count differently."""


class Replicas:
    """Monitor of the parameters of every process. Any difference ends the run: a machine computes wrong."""

    def __init__(self, model: nn.Module, accelerator: Accelerator, interval: int) -> None:
        self.parameters = dict(model.named_parameters())
        self.accelerator = accelerator
        self.every = Every(interval)

    def restart(self) -> None:
        """Look again after an interval."""
        self.every.restart()

    @torch.no_grad()
    def collect(self, step: int) -> Tensor | None:
        """Return, where it is time to look, 1 for each parameter of each process that is not the first process's."""
        if not self.every.is_due(step) or not self.parameters:
            return None
        own = torch.stack([checksum(parameter) for parameter in self.parameters.values()])
        everywhere = cast(Tensor, self.accelerator.gather(own[None]))
        return everywhere != everywhere[:1]

    def judge(self, row: Row, values: Sequence[float]) -> list[Finding] | None:
        """Return the processes that differ from the first one, and the first parameter that does."""
        if not values:
            return None
        differs = np.array(values).reshape(-1, len(self.parameters)) > 0
        if not differs.any():
            return []
        others = ", ".join(map(str, np.flatnonzero(differs.any(1))))
        first = list(self.parameters)[int(differs.any(0).argmax())]
        text = (
            f"at step {row.step} the weights of process {others} are not those of process 0, first in {first} "
            f"({differs.any(0).sum()} of {len(self.parameters)} parameters): a machine computes wrong. Test its memory "
            f"and its GPU, and go on from a checkpoint of step {max(0, row.step - self.every.steps)} or before."
        )
        return [Finding("replicas", text, {"processes": int(differs.any(1).sum())}, stops=True)]


def checksum(tensor: Tensor) -> Tensor:
    """Return a 64-bit sum of the bits of a tensor and their places, on its device.

    The order of summation makes no difference to integers.

    Shape:
        any -> ()
    """
    bits = tensor.detach().flatten().view(_INTEGERS[tensor.element_size()]).long()
    places = torch.arange(1, len(bits) + 1, device=bits.device)
    return (bits * (places * _FACTOR)).sum()
