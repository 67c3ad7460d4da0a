"""The speed of a run and the share of its time that is spent waiting for data."""

import time
from collections.abc import Iterator
from typing import TypeVar

T = TypeVar("T")


class Stopwatch:
    """Images per second and the share of time spent waiting for data since the last `restart`."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Start to measure anew."""
        self.start = time.perf_counter()
        self.waited = 0.0
        self.images = 0

    def wait_for(self, batches: Iterator[T]) -> T:
        """Return the next batch and count the time until it arrives. Raises StopIteration at the end."""
        asked = time.perf_counter()
        batch = next(batches)
        self.waited += time.perf_counter() - asked
        return batch

    @property
    def elapsed(self) -> float:
        """Seconds since the last `restart`, at least a nanosecond."""
        return max(time.perf_counter() - self.start, 1e-9)

    def read(self) -> dict[str, float]:
        """Return ``perf/images_per_second`` (of all processes) and ``perf/data_wait`` (0-1)."""
        elapsed = self.elapsed
        return {"perf/images_per_second": self.images / elapsed, "perf/data_wait": self.waited / elapsed}
