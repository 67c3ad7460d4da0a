"""Spikes of the loss and of the norm of the gradient, and a gradient that is gone."""

from collections import deque
from collections.abc import Sequence

import numpy as np

from backbones.training.health.monitor import Finding, HostMonitor, Row

MIN_STEPS = 100
"""Steps to see before the next one can be a spike."""
LOSS_WINDOW, NORM_WINDOW = 200, 500
"""Steps that a new one is compared with."""
MIN_DEVIATIONS, MIN_LOSS_RATIO = 6.0, 1.5
"""Standard deviations above the mean, and ratio to the median, from which on a loss is a spike."""
MIN_NORM_RATIO = 10.0
"""Ratio to the median from which on a norm is a spike."""
MIN_NORM = 1e-7
"""Norm below which nothing is learned any more."""


class LossSpikes(HostMonitor):
    """Monitor of the loss of each step."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Forget the losses."""
        self.window: deque[float] = deque(maxlen=LOSS_WINDOW)

    def look(self, row: Row) -> list[Finding]:
        """Return the highest spike of the row."""
        first = row.step - len(row.losses) + 1
        spikes = [self._compare(step, loss) for step, loss in enumerate(row.losses, first)]
        return _keep_highest(spikes)

    def _compare(self, step: int, loss: float) -> Finding | None:
        before = np.array(self.window)
        self.window.append(loss)
        if len(before) < MIN_STEPS or loss <= MIN_LOSS_RATIO * (median := float(np.median(before))):
            return None
        if loss <= before.mean() + MIN_DEVIATIONS * before.std():
            return None
        text = f"the loss of step {step} is {loss:.4g}, and the median of {len(before)} steps before is {median:.4g}"
        return Finding("loss_spike", text, {"at": step, "value": loss, "median": median})


class GradientSpikes(HostMonitor):
    """Monitor of the norm of the gradient of each step."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Forget the norms."""
        self.window: deque[float] = deque(maxlen=NORM_WINDOW)

    def look(self, row: Row) -> list[Finding]:
        """Return the highest spike of the row, and whether all of its gradients are gone."""
        spikes = [self._compare(step, norm) for step, norm in row.norms.items()]
        return _keep_highest(spikes) + _find_gone(row)

    def _compare(self, step: int, norm: float) -> Finding | None:
        before = np.array(self.window)
        self.window.append(norm)
        if len(before) < MIN_STEPS or norm <= MIN_NORM_RATIO * (median := float(np.median(before))):
            return None
        text = f"the gradient of step {step} has the norm {norm:.4g}, and the median of {len(before)} steps before is"
        return Finding("gradient_spike", f"{text} {median:.4g}", {"at": step, "value": norm, "median": median})


def _keep_highest(spikes: Sequence[Finding | None]) -> list[Finding]:
    found = [spike for spike in spikes if spike]
    return [max(found, key=lambda spike: spike.numbers["value"])] if found else []


def _find_gone(row: Row) -> list[Finding]:
    largest = max(row.norms.values(), default=1.0)
    if not largest < MIN_NORM:
        return []
    text = f"the norm of the gradient is at most {largest:.3g} up to step {row.step}: nothing is learned any more"
    return [Finding("gradient_gone", text, {"value": largest})]
