"""Background writer: a thread that writes checkpoints while training goes on."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from backbones.errors import UserError

MAX_FAILURES = 3
"""Failed attempts in a row that end a run."""


class Writer:
    """A thread that does the jobs given to it while the caller goes on.

    A job that fails, as on a full disk, is a warning and waits for the next start, until there are too many failures.
    """

    def __init__(self, warn: Callable[[str], None]) -> None:
        self.warn = warn
        self.failures = 0
        """Attempts that failed, one after the other."""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint-writer")
        self._jobs: dict[str, Callable[[], Any]] = {}
        self._running: Future[None] | None = None

    def start(self, what: str, job: Callable[[], Any]) -> None:
        """Wait for the jobs before, then start this one. It takes the place of a failed one of the same name.

        Args:
            what: name of the job, which completes the warning "... failed".
            job: writes a file or folder, whole or not at all.
        """
        self.settle()
        self._jobs[what] = job
        self._running = self._thread.submit(self._work)

    def poll(self) -> None:
        """Take note of jobs that have ended. This does not wait."""
        if self._running and self._running.done():
            self.settle()

    def settle(self) -> None:
        """Wait for the jobs. Raises UserError where too many attempts in a row failed."""
        if self._running is None:
            return
        running, self._running = self._running, None
        try:
            running.result()
            self.failures = 0
        except (OSError, RuntimeError, SafetensorError) as error:
            self._count_failure(f"{next(iter(self._jobs))} failed: {_first_line(error)}", error)

    def finish(self) -> None:
        """Wait for the jobs, and try again those that failed. Raises UserError where they fail too often."""
        self.settle()
        while self._jobs:
            self._running = self._thread.submit(self._work)
            self.settle()

    def close(self) -> None:
        """Wait for the job, whatever becomes of it, and end the thread."""
        self._thread.shutdown(wait=True)

    def _work(self) -> None:
        """Do all jobs, the oldest one first."""
        for what in list(self._jobs):
            self._jobs[what]()
            del self._jobs[what]

    def _count_failure(self, message: str, error: BaseException) -> None:
        self.failures += 1
        if self.failures >= MAX_FAILURES:
            raise UserError(f"{message}. It was attempt {self.failures} in a row.") from error
        self.warn(f"{message}; the checkpoints before are kept, and the next save tries again")


def copy_to_host(value: Any) -> Any:
    """Return a copy of nested dictionaries, lists and tensors that later steps do not change, in the host's memory."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True, memory_format=torch.preserve_format)
    if isinstance(value, dict):
        return {key: copy_to_host(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map(copy_to_host, value))
    return value


def count_bytes(value: Any) -> int:
    """Return the bytes of all tensors in nested dictionaries and lists."""
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    items = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return sum(map(count_bytes, items))


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
