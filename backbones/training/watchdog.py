"""Watchdog: a thread that ends this process when it makes no progress."""

import faulthandler
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from backbones import terminal

POLL_SECONDS = 1.0
"""Time between two looks of the watchdog."""

MARGIN_SECONDS = 15.0
"""Time beyond the limit of collectives, which can explain better why nothing goes on."""

HUNG = 1
"""Exit status of a process that the watchdog ended."""


class Watchdog:
    """Count of the seconds since the last sign of progress, without those in which the whole process was stopped."""

    def __init__(self, rank: int, limit: float, end: Callable[[], None] | None = None) -> None:
        self.rank = rank
        self.limit = limit
        """Seconds without progress after which the process ends."""
        self.end = end or _end_process
        self.before_end: Callable[[], None] = lambda: None
        """Called before the process ends."""
        self.phase = "the start"
        self.waited = 0.0

    def beat(self, phase: str) -> None:
        """Note progress, and what this process does next."""
        self.phase, self.waited = phase, 0.0

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch this process during the block."""
        done = threading.Event()
        thread = threading.Thread(target=self._watch, args=(done,), name="watchdog", daemon=True)
        self.beat(self.phase)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def _watch(self, done: threading.Event) -> None:
        while not done.wait(POLL_SECONDS):
            self.waited += POLL_SECONDS
            if self.waited > self.limit:
                self._explain()
                self.before_end()
                self.end()
                return

    def _explain(self) -> None:
        """Say what hangs, with the place in the program of every thread."""
        terminal.STDERR.console.print(
            f"error (rank {self.rank} on {socket.gethostname()}): no progress for {self.waited:.0f} s in {self.phase} "
            "(--timeout, --first-timeout). All threads of this process:"
        )
        faulthandler.dump_traceback(file=2, all_threads=True)


def _end_process() -> None:
    """End the process without waiting for any thread."""
    sys.stdout.flush()
    os._exit(HUNG)
