"""The state of a run in status.json, for schedulers and watchdogs: an exit status does not survive every launcher."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from backbones.files import json_text, write_text
from backbones.training.control import StoppedError

STATUS = "status.json"

State = Literal["running", "preempted", "finished", "failed"]


@contextmanager
def report_status(folder: Path, step: Callable[[], int]) -> Iterator[None]:
    """Write "running" at the start of the block, and at its end whether the run finished, was preempted or failed."""
    write_status(folder, "running", step())
    try:
        yield
    except (StoppedError, KeyboardInterrupt):
        write_status(folder, "preempted", step())
        raise
    except BaseException:
        write_status(folder, "failed", step())
        raise
    write_status(folder, "finished", step())


def write_status(folder: Path, state: State, step: int) -> None:
    """Write ``status.json`` with the state, the step and the time in seconds since 1970."""
    write_text(folder / STATUS, json_text({"state": state, "step": step, "time": round(time.time(), 3)}) + "\n")
