"""Running variances of BatchNorm: too large, next to zero, or far apart between the processes."""

from collections.abc import Sequence
from typing import NamedTuple, cast

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from backbones.training.health.monitor import Every, Finding, Row

INTERVAL = 500
"""Steps between two looks."""
MAX_VARIANCE, MIN_VARIANCE = 1e4, 1e-6
"""Range of a healthy running variance."""
MAX_DEAD_SHARE = 0.2
"""Share of a layer's channels that may have next to no variance. Weight decay removes single channels of good ones."""
MAX_RATIO = 10.0
"""Ratio of a layer's mean variances in two processes."""


class _Layer(NamedTuple):
    """Running variance of one layer in one process."""

    mean: float
    highest: float
    dead: float
    """Share of the channels with next to no variance."""


class BatchNormStatistics:
    """Monitor of all BatchNorm layers, on all processes."""

    def __init__(self, model: nn.Module, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        self.layers = {
            name: module
            for name, module in model.named_modules()
            if isinstance(module, _BatchNorm) and module.running_var is not None
        }
        self.every = Every(INTERVAL)

    def restart(self) -> None:
        """Look again after an interval."""
        self.every.restart()

    def collect(self, step: int) -> Tensor | None:
        """Return `_Layer` of each layer in each process, where it is time to look."""
        if not self.every.is_due(step) or not self.layers:
            return None
        own = torch.stack([_measure(cast(Tensor, layer.running_var)) for layer in self.layers.values()])
        return cast(Tensor, self.accelerator.gather(own[None]))

    def judge(self, row: Row, values: Sequence[float]) -> list[Finding] | None:  # noqa: ARG002
        """Return the layers with bad statistics."""
        if not values:
            return None
        by_process = np.array(values).reshape(-1, len(self.layers), len(_Layer._fields))
        findings = [
            _judge_layer(name, [_Layer(*process[number].tolist()) for process in by_process])
            for number, name in enumerate(self.layers)
        ]
        return [finding for finding in findings if finding]


def _measure(variance: Tensor) -> Tensor:
    """Return the values of `_Layer`.

    Shape:
        (C,) -> (3,)
    """
    return torch.stack([variance.mean(), variance.amax(), (variance < MIN_VARIANCE).float().mean()])


def _judge_layer(name: str, by_process: Sequence[_Layer]) -> Finding | None:
    means = [layer.mean for layer in by_process]
    highest, dead = max(layer.highest for layer in by_process), max(layer.dead for layer in by_process)
    ratio = max(means) / max(min(means), MIN_VARIANCE)
    numbers = {"highest": highest, "dead": dead, "ratio": ratio}
    if highest > MAX_VARIANCE:
        text = f"the running variance of {name} is up to {highest:.3g}"
    elif dead > MAX_DEAD_SHARE:
        text = f"{dead:.0%} of the channels of {name} have a running variance below {MIN_VARIANCE:g}"
    elif ratio > MAX_RATIO:
        far = f"{max(means):.3g} in process {np.argmax(means)} and {min(means):.3g} in process {np.argmin(means)}"
        text = f"the mean running variance of {name} is {far}"
    else:
        return None
    return Finding("batch_norm", text, numbers, name)
