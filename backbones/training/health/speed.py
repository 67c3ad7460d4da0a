"""Speed of a run: a stall of the data, and a drop of the throughput. Both look at minutes, not at single rows."""

import statistics
from collections import deque
from typing import NamedTuple

from backbones.training.health.monitor import Finding, HostMonitor, Level, Row

STRETCH_STEPS = 100
"""Steps that are joined: rows can be as short as one step."""
STALL_SECONDS, MAX_STALL, STALL_RELEASE = 300.0, 0.10, 0.05
"""Time over which the share of waiting is taken, its limit, and where the alarm ends."""
REFERENCE_STRETCHES = 10
"""Stretches at the start whose median speed is the reference."""
DROP_SECONDS, MAX_DROP, DROP_RELEASE = 600.0, 0.15, 0.10
"""Time over which the median speed is taken, how far it may be below the reference, and where the alarm ends."""


class Stretch(NamedTuple):
    """Sums over consecutive rows."""

    steps: int = 0
    seconds: float = 0.0
    waited: float = 0.0
    images: float = 0.0

    def with_row(self, row: Row) -> "Stretch":
        """Return the stretch with a row more."""
        return Stretch(
            self.steps + len(row.losses),
            self.seconds + row.seconds,
            self.waited + row.waited,
            self.images + row.images_per_second * row.seconds,
        )

    @property
    def speed(self) -> float:
        """Images per second."""
        return self.images / max(self.seconds, 1e-9)


class Stretches:
    """The newest stretches that last ``seconds`` of training; pauses for validations do not count."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.recent: deque[Stretch] = deque()
        self.total = 0.0
        """Seconds of the recent ones."""
        self._open: Stretch | None = None
        """The one that is not yet long enough; None before the first row, which has the start of everything in it."""

    @property
    def is_enough(self) -> bool:
        """Whether they are long enough together."""
        return self.total >= self.seconds

    def add(self, row: Row) -> Stretch | None:
        """Add a row, and return the stretch that it completes, if it does."""
        if self._open is None:
            self._open = Stretch()
            return None
        self._open = self._open.with_row(row)
        if self._open.steps < STRETCH_STEPS:
            return None
        done, self._open = self._open, Stretch()
        self._keep(done)
        return done

    def _keep(self, done: Stretch) -> None:
        self.recent.append(done)
        self.total += done.seconds
        while self.total - self.recent[0].seconds >= self.seconds:
            self.total -= self.recent.popleft().seconds


class DataStall(HostMonitor):
    """Monitor of the share of time that the first process waits for data."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Forget the rows."""
        self.stretches, self.level = Stretches(STALL_SECONDS), Level(MAX_STALL, STALL_RELEASE)

    def look(self, row: Row) -> list[Finding] | None:
        """Return whether the last minutes had too much waiting."""
        if not self.stretches.add(row) or not self.stretches.is_enough:
            return None
        share = sum(stretch.waited for stretch in self.stretches.recent) / self.stretches.total
        if not self.level.exceeds(share):
            return []
        text = f"{share:.0%} of the last {STALL_SECONDS / 60:g} minutes went into waiting for data"
        return [Finding("data_stall", text, {"share": share})]


class ThroughputDrop(HostMonitor):
    """Monitor of images per second, compared with the first thousand steps since the start."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Forget the rows, and take a new reference."""
        self.stretches, self.level = Stretches(DROP_SECONDS), Level(MAX_DROP, DROP_RELEASE)
        self.first: list[float] = []
        """Speed of each of the first stretches."""

    def look(self, row: Row) -> list[Finding] | None:
        """Return whether the last minutes were slower than the first steps."""
        stretch = self.stretches.add(row)
        if stretch and len(self.first) < REFERENCE_STRETCHES:
            self.first.append(stretch.speed)
        if not stretch or len(self.first) < REFERENCE_STRETCHES or not self.stretches.is_enough:
            return None
        before, now = statistics.median(self.first), statistics.median(each.speed for each in self.stretches.recent)
        if not self.level.exceeds(1 - now / before):
            return []
        text = f"{now:.0f} images/s in the last {DROP_SECONDS / 60:g} minutes, and {before:.0f} in the first steps"
        return [Finding("throughput", text, {"images_per_second": now, "before": before})]
