"""Stragglers: a process whose own work takes longer, so that all others wait for it in each step.

The time of a whole step is the same everywhere, since the gradients are added up in each. A process's own time is that
of waiting for data and of its forward passes.
"""

import statistics
import time
from collections.abc import Sequence
from typing import Any, cast

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from backbones.training.health.monitor import Every, Finding, Row

INTERVAL = 500
"""Steps between two looks."""
MAX_RATIO = 1.15
"""Ratio of the slowest process to the median of all."""
MIN_LOOKS = 2
"""Looks in a row at which the same process is the slowest before it is an alarm."""


class ForwardTimer:
    """Time of the forward passes of a network, on its device. Nothing waits for it.

    Args:
        model: the network as it is called in training.
        device: its device.
    """

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        self.is_on_gpu = device.type == "cuda"
        self.starts: list[Any] = []
        self.ends: list[Any] = []
        model.register_forward_pre_hook(lambda *_: self.starts.append(self._now()))
        model.register_forward_hook(lambda *_: self.ends.append(self._now()))

    def take(self) -> float:
        """Return the seconds since the last call. The device must have done its work by now."""
        pairs = list(zip(self.starts, self.ends, strict=False))
        self.starts.clear()
        self.ends.clear()
        if self.is_on_gpu:
            return sum(start.elapsed_time(end) for start, end in pairs) / 1000
        return sum(end - start for start, end in pairs)

    def _now(self) -> Any:
        if not self.is_on_gpu:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event


class Stragglers:
    """Monitor of the own time of every process."""

    def __init__(self, model: nn.Module, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        self.timer = ForwardTimer(model, accelerator.device)
        self.every = Every(INTERVAL)
        self.seconds, self.steps = 0.0, 0
        self.looks: tuple[int, int] = (0, 0)
        """Process that was the slowest at the last looks, and how many looks in a row."""

    def restart(self) -> None:
        """Measure anew."""
        self.every.restart()
        self.timer.take()
        self.seconds, self.steps, self.looks = 0.0, 0, (0, 0)

    def collect(self, step: int) -> Tensor | None:
        """Return the own time of each process in seconds per step up to the last row, where it is time to look."""
        if not self.every.is_due(step) or not self.steps:
            return None
        own = torch.tensor([self.seconds / self.steps], device=self.accelerator.device)
        self.seconds, self.steps = 0.0, 0
        return cast(Tensor, self.accelerator.gather(own))

    def judge(self, row: Row, values: Sequence[float]) -> list[Finding] | None:
        """Note the time of this row, and return the process that keeps the others waiting."""
        self.seconds += self.timer.take() + row.waited
        self.steps += len(row.losses)
        return self._compare(values) if values else None

    def _compare(self, seconds: Sequence[float]) -> list[Finding]:
        slowest, median = max(range(len(seconds)), key=lambda rank: seconds[rank]), statistics.median(seconds)
        if seconds[slowest] <= MAX_RATIO * median:
            self.looks = (0, 0)
            return []
        rank, looks = self.looks
        self.looks = (slowest, looks + 1 if rank == slowest else 1)
        if self.looks[1] < MIN_LOOKS:
            return []
        own, others = 1000 * seconds[slowest], 1000 * median
        text = f"process {slowest} takes {own:.0f} ms of its own in each step, the median is {others:.0f} ms"
        return [Finding("straggler", text, {"process": slowest, "own_ms": own, "median_ms": others}, str(slowest))]
