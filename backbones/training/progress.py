"""What a person sees while it runs: a bar with ETA, images/s and the share of time spent waiting for data."""

import time
from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

T = TypeVar("T")
_LINE = "epoch {epoch:3d}  step {step}/{total}  {rate:.0f} images/s  data wait {wait:.0%}  ETA {eta}"


class Stopwatch:
    """Images per second and the share of time spent waiting for data since the last ``restart``."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Start to measure anew."""
        self.start = time.perf_counter()
        self.waited = 0.0
        self.images = 0

    def waiting_for(self, batches: Iterable[T]) -> Iterator[T]:
        """Yield the batches, counting the time until each arrives."""
        iterator = iter(batches)
        while True:
            asked = time.perf_counter()
            batch = next(iterator, None)
            self.waited += time.perf_counter() - asked
            if batch is None:
                return
            yield batch

    def read(self) -> dict[str, float]:
        """Return ``perf/images_per_second`` (of all processes) and ``perf/data_wait`` (0-1)."""
        elapsed = max(time.perf_counter() - self.start, 1e-9)
        return {"perf/images_per_second": self.images / elapsed, "perf/data_wait": self.waited / elapsed}


class ProgressBar:
    """A bar on a terminal; elsewhere (a log file) one plain line every ``seconds``."""

    def __init__(self, total_steps: int, *, enabled: bool = True, seconds: float = 10.0) -> None:
        self.total, self.enabled, self.seconds = total_steps, enabled, seconds
        self.first, self.start = 0, time.perf_counter()
        self.printed = self.start
        self.console = Console(soft_wrap=True, highlight=False, markup=False)
        self.bar = Progress(BarColumn(), TextColumn("{task.description}", markup=False), console=self.console)
        self.task = self.bar.add_task("starting", total=total_steps)

    def begin(self, step: int) -> None:
        """Start to measure the time left, at ``step``."""
        self.first, self.start = step, time.perf_counter()
        if self.enabled and self.console.is_terminal:
            self.bar.start()

    def update(self, step: int, epoch: int, speed: dict[str, float]) -> None:
        """Show the state after ``step``."""
        now = time.perf_counter()
        if not self.enabled or (not self.console.is_terminal and now - self.printed < self.seconds):
            return
        self.printed = now
        text = _LINE.format(
            epoch=epoch + 1,
            step=step,
            total=self.total,
            rate=speed["perf/images_per_second"],
            wait=speed["perf/data_wait"],
            eta=self._eta(step, now),
        )
        if self.console.is_terminal:
            self.bar.update(self.task, completed=step, description=text)
        else:
            self.console.print(text)

    def print(self, text: str) -> None:
        """Print a line above the bar."""
        if self.enabled:
            self.console.print(text)

    def close(self) -> None:
        """Take the bar down."""
        if self.bar.live.is_started:
            self.bar.stop()

    def _eta(self, step: int, now: float) -> timedelta:
        done = max(step - self.first, 1)
        return timedelta(seconds=round((now - self.start) / done * (self.total - step)))
