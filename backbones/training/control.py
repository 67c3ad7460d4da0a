"""Agreement of all processes after each step: whether to save, and whether to stop because of a signal."""

import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from types import FrameType
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from accelerate import Accelerator

from backbones.errors import INTERRUPTED, PREEMPTED, UserError
from backbones.recipe import Saving, Waiting
from backbones.training.watchdog import MARGIN_SECONDS, Watchdog

SIGNALS = {signal.SIGTERM: PREEMPTED, signal.SIGUSR1: PREEMPTED, signal.SIGINT: INTERRUPTED}
"""Signals that end a run after the current step, and the exit statuses."""

TIMEOUT_TEXTS = r"[Tt]imed out|[Tt]imeout|[Cc]onnection (closed|reset)"
"""Texts in the errors of gloo and NCCL where another process does not answer."""

# Public since torch 2.14, private before
set_timeout = dist.set_timeout if hasattr(dist, "set_timeout") else dist.distributed_c10d._set_pg_timeout


class StoppedError(UserError):
    """The end of a run that was told to stop by a signal, after it was saved."""

    def __init__(self, number: int, step: int, run: str = "RUN") -> None:
        name = signal.Signals(number).name
        super().__init__(f"stopped by {name} after step {step}, which is saved: go on with --resume {run}")
        self.exit_status = SIGNALS[signal.Signals(number)]


class Decision(NamedTuple):
    """Decision of all processes after a step."""

    save: bool
    signal: int
    """Signal that ends the run; 0: none."""


class Control:
    """The signals that this process has received and the time of the last checkpoint."""

    def __init__(
        self, accelerator: Accelerator, saving: Saving, waiting: Waiting | None = None, *, run: str = "RUN"
    ) -> None:
        self.waiting = waiting or Waiting()
        self.accelerator, self.saving = accelerator, saving
        self.run = run
        """The run folder, for the message at the end."""
        self.received = 0
        self.is_interruptible = False
        """A signal ends the run at once: there is nothing to save, as in a validation after its checkpoint."""
        self.step = 0
        self.saved_at = time.monotonic()
        # On the hosts: an agreement must not wait for a GPU
        first = timedelta(seconds=self.waiting.first_timeout)
        self.group: Any = dist.new_group(backend="gloo", timeout=first) if accelerator.num_processes > 1 else None
        self.is_first_step = True
        self.watchdog = Watchdog(accelerator.process_index, self.waiting.first_timeout + MARGIN_SECONDS)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Note the signals during the block; outside, and on a second Ctrl-C, they do what they always do."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._note) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Let a signal end the run at once during the block, which is a validation."""
        if self.received:
            raise self.stop(self.received)
        self.is_interruptible = True
        try:
            yield
        finally:
            self.is_interruptible = False

    def decide(self, step: int) -> Decision:
        """Return what all processes do after ``step``: the first one looks at the clock, any may have a signal."""
        self.step = step
        seconds, every = self.saving.ckpt_minutes and 60 * self.saving.ckpt_minutes, self.saving.ckpt_every
        is_late = seconds is not None and time.monotonic() - self.saved_at >= seconds
        here = torch.tensor([self.received, is_late and self.accelerator.is_main_process], dtype=torch.int64)
        if self.group is not None:
            dist.all_reduce(here, op=dist.ReduceOp.MAX, group=self.group)
        self._shorten_timeouts()
        self.watchdog.beat(f"step {step + 1}")
        received, is_due = here.tolist()
        return Decision(bool(is_due) or received != 0 or (every is not None and step % every == 0), received)

    def stop(self, number: int) -> StoppedError:
        """Return the error that ends the run because of a signal."""
        return StoppedError(number, self.step, self.run)

    def note_save(self) -> None:
        """Start to count the minutes to the next checkpoint."""
        self.saved_at = time.monotonic()

    @contextmanager
    def explaining_hangs(self, before_end: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Turn the error of a wait that took too long into a UserError with process, host and phase.

        A process that waits without an error, as for its data, is ended by the watchdog, after ``before_end``.
        """
        self.watchdog.before_end = before_end
        try:
            with self.watchdog.watching():
                yield
        except RuntimeError as error:
            if self.group is None or not re.search(TIMEOUT_TEXTS, str(error)):
                raise
            seconds = self.waiting.first_timeout if self.is_first_step else self.waiting.timeout
            raise UserError(
                f"process {self.accelerator.process_index} on {socket.gethostname()}: after step {self.step}, in "
                f"{self.watchdog.phase}, another process is gone or did not answer within {seconds:g} s (--timeout, "
                "--first-timeout)."
            ) from error

    def _shorten_timeouts(self) -> None:
        """From the second step on, wait for other processes less long."""
        if self.is_first_step:
            self.is_first_step = False
            self.watchdog.limit = self.waiting.timeout + MARGIN_SECONDS
            for group in (self.group, dist.group.WORLD) if self.group is not None else ():
                set_timeout(timedelta(seconds=self.waiting.timeout), group)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if self.received == number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = self.received or number
        if self.is_interruptible:
            raise self.stop(self.received)
