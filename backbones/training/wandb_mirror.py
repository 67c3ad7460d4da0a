"""The W&B run of a run folder. A process of its own sends the rows, so that W&B costs a run neither time nor rows."""

import json
import os
import re
import secrets
import select
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from backbones.recipe import Recipe
from backbones.terminal import say
from backbones.training import wandb_sender
from backbones.training.wandb_sender import METRICS, MODES, Order, count_rows, read_ledger

FINISH_SECONDS = 30.0
"""Time to send what is left at the end of a run."""

HASTY_SECONDS = 5.0
"""The same where the run was stopped or failed: a scheduler may kill it soon."""

RETRY_SECONDS = 600.0
"""Time after a failure until the process is started again."""

MAX_REASON = 300
"""Characters of a reason that are shown."""

MAX_TITLE, MAX_TEXT = 64, 300
"""Characters of an alert. A message must fit into a pipe as a whole."""


class Sender:
    """Process that sends the rows of a run folder to W&B. Raises OSError where it cannot be started."""

    def __init__(self, order: Order) -> None:
        self.where = ""
        """Address of the W&B run, once it is known."""
        self.failure = ""
        """Reason why it failed, once it has."""
        self.rows: int | None = None
        """Rows that W&B has confirmed, once it is done."""
        self._heard = b""
        self._process = subprocess.Popen(
            [sys.executable, "-P", wandb_sender.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=_environment(),
            start_new_session=True,  # Ctrl-C and a scheduler's signals are for the run
            bufsize=0,
        )
        self._write(asdict(order))
        os.set_blocking(self._input.fileno(), False)

    @property
    def is_running(self) -> bool:
        """True until the process has ended."""
        return self._process.returncode is None

    def alert(self, title: str, text: str) -> None:
        """Send a message to whoever watches the run, or lose it; never wait."""
        self._write({"title": title[:MAX_TITLE], "text": text[:MAX_TEXT]})

    def listen(self, seconds: float = 0.0) -> None:
        """Take the answers so far, or until the process ends or the time is over."""
        until = time.monotonic() + seconds
        poller = select.poll()
        poller.register(self._output, select.POLLIN)
        while self.is_running and poller.poll(1000 * max(0.0, until - time.monotonic())):
            heard = os.read(self._output.fileno(), 1 << 16)
            *lines, self._heard = (self._heard + heard).split(b"\n")
            for line in lines:
                self._take(**json.loads(line))
            if not heard:
                status = self._process.wait()
                self.failure = self.failure or ("" if self.rows is not None else f"its process ended with {status}")

    def close(self, seconds: float) -> None:
        """Let the process send what is left, and end it when the time is over."""
        try:
            self._input.close()
            self.listen(seconds)
            if self.is_running:
                self.failure = self.failure or f"not done after {seconds:.0f} s"
        finally:
            self.kill()

    def kill(self) -> None:
        """End the process and W&B's own, which may be stopped, if they still run."""
        if self.is_running:
            with suppress(psutil.Error):
                for child in psutil.Process(self._process.pid).children(recursive=True):
                    child.kill()
            self._process.kill()
            self._process.wait()
        self._input.close()
        self._output.close()

    @property
    def _input(self) -> Any:
        return self._process.stdin

    @property
    def _output(self) -> Any:
        return self._process.stdout

    def _write(self, message: dict[str, Any]) -> None:
        with suppress(OSError):  # the process has ended: `listen` finds out why
            self._input.write(json.dumps(message).encode() + b"\n")

    def _take(self, *, where: str = "", failed: str = "", rows: int | None = None) -> None:
        self.where = where or self.where
        self.failure = _shorten(failed) or self.failure
        self.rows = self.rows if rows is None else rows


class WandbMirror:
    """A run's rows at W&B while it lasts. Trouble is one warning; later the process is started again, in silence."""

    def __init__(self, folder: Path, recipe: Recipe, *, run_id: str | None = None) -> None:
        self.folder = folder
        self.recipe = recipe
        self.id = find_id(folder) or run_id or secrets.token_hex(4)
        self.where = ""
        self.has_warned = False
        self.failed_at = 0.0
        self.sender: Sender | None = None
        self.start()

    def start(self) -> None:
        """Start the process, which sends the rows that W&B does not have yet and those that come."""
        if os.environ.get("WANDB_MODE") == "disabled" and self.recipe.log.wandb_mode is None:
            return
        try:
            self.sender = Sender(create_order(self.folder, self.recipe, self.id))
        except OSError as error:
            self._fail(str(error))

    def poll(self) -> None:
        """Print what the process has answered, and start it again some time after a failure; never wait."""
        if self.sender:
            self._attempt(self.sender.listen)
        elif self.failed_at and time.monotonic() > self.failed_at + RETRY_SECONDS:
            self.start()

    def alert(self, title: str, text: str) -> None:
        """Send a message to whoever watches the run; never wait."""
        if self.sender:
            self._attempt(partial(self.sender.alert, title, text))
        self.poll()

    def close(self, seconds: float = FINISH_SECONDS) -> None:
        """Wait until W&B has every row, but not longer than this."""
        if self.sender:
            self._attempt(partial(self.sender.close, seconds))
            self.sender = None

    def _attempt(self, action: Callable[[], None]) -> None:
        """Do something with the process, and report what came of it. Whatever goes wrong, the run goes on."""
        try:
            action()
            if self.sender and self.sender.where not in ("", self.where):
                self.where = self.sender.where
                say("W&B", self.where)
            if self.sender and self.sender.failure:
                self._fail(self.sender.failure)
        except Exception as error:  # noqa: BLE001 (as promised)
            self._fail(f"{type(error).__name__}: {error}")

    def _fail(self, reason: str) -> None:
        if self.sender:
            self.sender.kill()
        self.sender = None
        self.failed_at = time.monotonic()
        if not self.has_warned:
            remedy = f"send them later: python -m backbones replay {shlex.quote(str(self.folder))}"
            say("warning", f"W&B failed ({reason}); the run goes on and {METRICS} has every row; {remedy}")
        self.has_warned = True


def create_order(folder: Path, recipe: Recipe, run_id: str) -> Order:
    """Return the order to send the rows of ``folder`` to the W&B run ``run_id``."""
    return Order(
        folder=str(folder.absolute()),
        at_most=count_rows(folder),
        parent=os.getpid(),
        id=run_id,
        name=folder.absolute().name,
        project=recipe.log.wandb_project,
        mode=recipe.log.wandb_mode,
        config=recipe.to_dict(),
    )


def find_id(folder: Path) -> str | None:
    """Return the id of the W&B run that rows of ``folder`` were sent to, if any were."""
    return next((ledger.id for mode in MODES if (ledger := read_ledger(folder, mode))), None)


def _environment() -> dict[str, str]:
    """Return the environment of the process: silent, and apart from any W&B that runs in this one."""
    own = {"WANDB_SILENT": "true", "WANDB_ERROR_REPORTING": "false"}
    return {name: value for name, value in os.environ.items() if not name.startswith("WANDB_SERVICE")} | own


def _shorten(reason: str) -> str:
    """Return a reason on one line, without the passwords of addresses."""
    return re.sub(r"//[^/@\s]+@", "//", " ".join(reason.split()))[:MAX_REASON]
