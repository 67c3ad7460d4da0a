"""Interface of a monitor: it gets every row of the log, and returns what is wrong."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from torch import Tensor


@dataclass(frozen=True)
class Row:
    """Figures of the steps since the last row, on the host."""

    step: int
    """Last step of the row."""
    losses: Sequence[float] = ()
    """Loss of each step, the mean of all processes."""
    norms: Mapping[int, float] = field(default_factory=dict)
    """Norm of the gradient of each step; empty under gradient scaling."""
    images_per_second: float = 0.0
    """Speed of all processes together."""
    seconds: float = 0.0
    """Time that the steps took."""
    waited: float = 0.0
    """Seconds of it that this process waited for data."""


class Finding(NamedTuple):
    """One thing that is wrong at a row."""

    alarm: str
    """Name of the alarm, such as ``loss_spike``."""
    text: str
    """One line for people."""
    numbers: Mapping[str, float] = {}
    """Figures for metrics.jsonl."""
    place: str = ""
    """Part of the run that it concerns, such as a layer: each place has an alarm of its own."""
    stops: bool = False
    """Whether it ends the run."""


class Monitor(Protocol):
    """Interface of a monitor. Every process calls both functions at every row, in this order."""

    def collect(self, step: int) -> Tensor | None:
        """Return values on the device that `judge` needs, the same number on every process; None: it needs none.

        It may call collectives, and must not wait for the device.
        """
        ...

    def judge(self, row: Row, values: Sequence[float]) -> list[Finding] | None:
        """Return everything that is wrong now; None where the monitor did not look at this row.

        Args:
            row: figures of the steps since the last row.
            values: what `collect` returned, on the host.
        """
        ...

    def restart(self) -> None:
        """Forget what was seen: the run went back or on from a checkpoint."""
        ...


class HostMonitor:
    """Base of the monitors that need nothing but rows."""

    def collect(self, step: int) -> Tensor | None:
        """Return nothing: there is nothing to read from the device."""

    def judge(self, row: Row, values: Sequence[float]) -> list[Finding] | None:  # noqa: ARG002
        """Return what `look` finds."""
        return self.look(row)

    def look(self, row: Row) -> list[Finding] | None:
        """Return everything that is wrong now; None where it is not yet time to say."""
        raise NotImplementedError


class Every:
    """Decision whether it is time to look: at the first row after each multiple of ``steps``."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.last: int | None = 0
        """Step of the last row; None after a restart, when the next row only starts the count."""

    def is_due(self, step: int) -> bool:
        """Return whether a multiple has been passed since the last call."""
        last, self.last = self.last, step
        return last is not None and step // self.steps > last // self.steps

    def restart(self) -> None:
        """Start to count at the next row."""
        self.last = None


class Level:
    """Limit with a gap: a value is too high from ``limit`` on, until it is back below ``release``."""

    def __init__(self, limit: float, release: float) -> None:
        self.limit, self.release = limit, release
        self.is_high = False

    def exceeds(self, value: float) -> bool:
        """Return whether the value is too high."""
        self.is_high = value > (self.release if self.is_high else self.limit)
        return self.is_high
