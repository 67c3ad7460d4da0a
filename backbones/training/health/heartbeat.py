"""Heartbeat: a small file that a thread writes, so that a watchdog outside needs no access to the process."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from backbones.files import json_text, write_text

HEARTBEAT = "heartbeat.json"
BEAT_SECONDS = 30.0
"""Time between two writes."""

LastKnown = Callable[[], tuple[int, float | None]]
"""Returns the last step and the loss of the last row. The thread calls it, so it must not touch a tensor."""


@contextmanager
def beating(file: Path, last_known: LastKnown) -> Iterator[None]:
    """Write step, loss and time (seconds since 1970) to ``file`` during the block, and once more at its end.

    It goes on in validations and while a checkpoint is written. A disk that is full or slow ends nothing.
    """
    stop = threading.Event()

    def beat() -> None:
        write_beat(file, *last_known())
        while not stop.wait(BEAT_SECONDS):
            write_beat(file, *last_known())
        write_beat(file, *last_known())

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(timeout=5)


def write_beat(file: Path, step: int, loss: float | None) -> None:
    """Write one heartbeat, whole or not at all."""
    with suppress(OSError):
        write_text(file, json_text({"step": step, "loss": loss, "time": round(time.time(), 3)}) + "\n")
