"""Program that sends the rows of a run folder to W&B, in a process of its own: nothing that W&B does can harm a run.

``python -P wandb_sender.py`` reads an `Order` from the first line of its input, then alerts; the end of the input ends
it. It answers in lines of JSON. It imports no other part of backbones, which would load torch. What was handed over is
kept in a `Ledger` in the run folder, so that the next start goes on there.
"""

import fcntl
import json
import os
import queue
import signal
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, TextIO
from urllib.error import HTTPError
from urllib.request import build_opener, getproxies

METRICS = "metrics.jsonl"
PICTURES = "pictures"
"""Folder of the pictures, with a folder for each name."""

Mode = Literal["online", "offline"]
MODES: tuple[Mode, Mode] = ("online", "offline")
LEDGERS = tuple(f"wandb-{mode}.json" for mode in MODES)
"""Files with the record of each mode."""

PROBE_SECONDS = 5.0
"""Time for the W&B server to answer at all. W&B itself would try again until `INIT_SECONDS` are over."""

INIT_SECONDS = 15.0
"""Time for W&B to accept the run."""

POLL_SECONDS = 1.0
"""Time between two looks at the file of rows."""

CONFIRM_SECONDS = 10
"""Time for W&B to count the rows that it was sent."""

LOCK_SECONDS = 60.0
"""Time to wait for another process that sends the rows of this folder."""

ORPHAN_SECONDS = 30
"""Time to end after the process that gave the order has died."""

LOCK = ".wandb.lock"
"""File that the process which sends the rows of a folder holds."""

PRIVATE: dict[str, Any] = {
    "console": "off",
    "disable_code": True,
    "disable_git": True,
    "disable_job_creation": True,
    "program": "train_imagenet.py",
    "save_code": False,
    "x_save_requirements": False,
}
"""Settings of W&B that keep code, the git remote, the command line and the console out of its files."""

IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)
"""Signals for the run. This process ends when its input does."""


@dataclass(frozen=True)
class Order:
    """Rows to send, and the W&B run to send them to."""

    folder: str
    at_most: int
    """Rows in the file now. Of later rows none was sent, whatever the ledger says."""
    parent: int
    """Id of the process that gives the order."""
    id: str
    name: str
    project: str
    mode: str | None
    """Mode of W&B; None: as W&B is configured."""
    config: dict[str, Any]


@dataclass(frozen=True)
class Ledger:
    """Record of the rows that W&B has."""

    id: str
    """Id of the W&B run."""
    rows: int = 0
    """Rows of the file that were handed over, from its first on."""
    step: int = 0
    """W&B's own step after them; it counts every row ever sent."""
    complete: bool = False
    """True when W&B has confirmed them."""
    where: str = ""
    """Address of the W&B run, or its folder where it is offline."""


def read_ledger(folder: Path, mode: str) -> Ledger | None:
    """Return the record of one mode, if there is one."""
    try:
        return Ledger(**json.loads(_ledger_file(folder, mode).read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def write_ledger(folder: Path, mode: str, ledger: Ledger) -> None:
    """Replace the record of one mode."""
    file = _ledger_file(folder, mode)
    partial = file.with_name(f"{file.name}.{os.getpid()}.partial")
    partial.write_text(json.dumps(asdict(ledger)) + "\n")
    partial.replace(file)


def forget_rows(folder: Path, kept: int) -> None:
    """Note that only the first ``kept`` rows of the file are still those that were sent."""
    for mode in MODES:
        ledger = read_ledger(folder, mode)
        if ledger and ledger.rows > kept:
            write_ledger(folder, mode, replace(ledger, rows=kept))


def count_rows(folder: Path) -> int:
    """Return the number of rows of a run folder."""
    return len(Rows(folder / METRICS).read())


class Rows:
    """Reader of a file of JSON lines that grows. What is no JSON object is no row."""

    def __init__(self, file: Path, *, skip: int = 0) -> None:
        self.file = file
        self.skip = skip
        self.position = 0

    def read(self) -> list[dict[str, Any]]:
        """Return the rows since the last call; a line without its end waits for the next one."""
        if not self.file.exists():
            return []
        with self.file.open("rb") as opened:
            opened.seek(self.position)
            whole = opened.read().rpartition(b"\n")[0]
        self.position += len(whole) + 1 if whole else 0
        rows = [row for line in whole.split(b"\n") for row in _parse(line)]
        skipped = min(self.skip, len(rows))
        self.skip -= skipped
        return rows[skipped:]


class Gallery:
    """Pictures of a run folder, ``pictures/NAME/STEP.png`` or ``STEP-KIND.png``, each given once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.step: Any = None
        self.given: set[Path] = set()
        """Pictures of ``step`` that were given."""

    def match(self, rows: Sequence[dict[str, Any]]) -> Iterator[dict[str, Path]]:
        """Yield for each row the pictures of its step by name; several of one name go to rows that follow."""
        files: dict[str, list[Path]] = {}
        for file in sorted(self.folder.rglob("*.png"), key=lambda file: file.stem):
            files.setdefault(file.stem.partition("-")[0], []).append(file)
        for row in rows:
            step = row.get("step")
            yield self._give(step, files.get(f"{step:08d}", []) if isinstance(step, int) else [])

    def _give(self, step: Any, files: Sequence[Path]) -> dict[str, Path]:
        if step != self.step:
            self.step, self.given = step, set()
        new = [file for file in reversed(files) if file not in self.given]
        chosen = {file.parent.relative_to(self.folder).as_posix(): file for file in new}
        self.given.update(chosen.values())
        return chosen


def send(order: Order, messages: "queue.Queue[Any]", tell: Callable[..., None]) -> None:
    """Send the rows that W&B does not have yet, and those that come, until the messages end with None.

    Raises what W&B raises, and RuntimeError where it does not confirm the rows.
    """
    with _own(Path(order.folder)):
        run = _start(order)
        mode: Mode = "offline" if run.offline else "online"
        ledger = _resume(order, run, mode)
        tell(where=ledger.where)
        ledger = _follow(order, run, ledger, mode, messages)
        run.finish()
        if mode == "online" and ledger.step:
            _require_arrived(run.path, ledger.step)
        write_ledger(Path(order.folder), mode, replace(ledger, complete=True))
        tell(rows=ledger.rows)


def _start(order: Order) -> Any:
    """Begin the W&B run, or go on with it."""
    import wandb  # noqa: PLC0415 (an import that fails is reported)

    settings = {"init_timeout": INIT_SECONDS, "x_stats_pid": order.parent, **PRIVATE}
    known = {name: value for name, value in settings.items() if name in wandb.Settings.model_fields}
    configured = wandb.setup().settings
    if (order.mode or configured.mode) == "online":
        _require_answer(configured.base_url)
    run = wandb.init(
        project=order.project,
        name=order.name,
        id=order.id,
        resume="allow",
        dir=order.folder,
        mode=order.mode,  # type: ignore[arg-type]
        config=order.config,
        settings=wandb.Settings(**known),
    )
    run.define_metric("step")
    run.define_metric("*", step_metric="step")
    return run


def _require_answer(url: str) -> None:
    """Raise OSError where nothing answers; any status of HTTP is an answer, and so is a certificate, good or bad."""
    if any(proxy.startswith("socks") for proxy in getproxies().values()):
        return  # urllib cannot use it, W&B can
    try:
        build_opener().open(url, timeout=PROBE_SECONDS).close()
    except HTTPError:
        return
    except OSError as error:
        reason = getattr(error, "reason", error)
        if not isinstance(reason, ssl.SSLError):
            raise ConnectionError(f"{url} does not answer: {reason}") from None


def _resume(order: Order, run: Any, mode: Mode) -> Ledger:
    """Return the record to go on with: W&B itself knows how many of the rows in flight it received."""
    folder = Path(order.folder)
    found = read_ledger(folder, mode) or read_ledger(folder, "offline")  # which `wandb sync` may have sent
    if found is None or found.id != order.id:
        found = Ledger(order.id)
    step = run.starting_step if mode == "online" else found.step
    rows = min(found.rows, order.at_most) - max(0, found.step - step)
    return Ledger(order.id, rows=max(0, rows), step=step, where=run.url or str(Path(run.dir).parent))


def _follow(order: Order, run: Any, ledger: Ledger, mode: Mode, messages: "queue.Queue[Any]") -> Ledger:
    """Send rows as they come and alerts, until the messages end or the process that gave the order has died."""
    folder = Path(order.folder)
    rows, gallery = Rows(folder / METRICS, skip=ledger.rows), Gallery(folder / PICTURES)
    goes_on = True
    while goes_on:
        goes_on = _hear(run, messages) and os.getppid() == order.parent
        new = rows.read()
        if new:  # recorded before they are handed over: W&B can tell that it has less, but not that it has more
            ledger = replace(ledger, rows=ledger.rows + len(new), step=ledger.step + len(new))
            write_ledger(folder, mode, ledger)
            for row, pictures in zip(new, gallery.match(new), strict=True):
                run.log({**row, **_to_images(pictures)})
    return ledger


def _hear(run: Any, messages: "queue.Queue[Any]") -> bool:
    """Wait a moment for an alert and send it. Return False at the end of the messages."""
    with suppress(queue.Empty):
        message = messages.get(timeout=POLL_SECONDS)
        if message is None:
            return False
        run.alert(**message)
    return True


def _to_images(pictures: dict[str, Path]) -> dict[str, Any]:
    """Return the pictures as W&B takes them, without those that cannot be read."""
    import wandb  # noqa: PLC0415 (as above)

    images: dict[str, Any] = {}
    for name, file in pictures.items():
        with suppress(Exception):
            images[name] = wandb.Image(str(file))
    return images


def _require_arrived(path: str, step: int) -> None:
    """Raise RuntimeError unless W&B has every row: `finish` says nothing where an upload failed."""
    import wandb  # noqa: PLC0415 (as above)

    run = wandb.Api(timeout=CONFIRM_SECONDS).run(path)
    until = time.monotonic() + CONFIRM_SECONDS
    while (arrived := run.lastHistoryStep + 1) < step:
        if time.monotonic() > until:
            raise RuntimeError(f"W&B has {arrived} of {step} rows")
        time.sleep(POLL_SECONDS)


@contextmanager
def _own(folder: Path) -> Iterator[None]:
    """Be the only process that sends the rows of ``folder`` during the block."""
    until = time.monotonic() + LOCK_SECONDS
    with (folder / LOCK).open("a") as opened:
        while True:
            try:
                fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if time.monotonic() > until:
                    raise TimeoutError("another process is sending the rows of this run") from None
                time.sleep(POLL_SECONDS)
        yield


def _ledger_file(folder: Path, mode: str) -> Path:
    return folder / f"wandb-{mode}.json"


def _parse(line: bytes) -> Iterator[dict[str, Any]]:
    with suppress(ValueError):
        row = json.loads(line.decode(errors="replace"))
        if isinstance(row, dict):
            yield row


def _take_over_output() -> TextIO:
    """Return the stream for answers. What W&B prints goes nowhere."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    return answers


def _read_messages(messages: "queue.Queue[Any]", parent: int) -> None:
    """Read the input to its end. A process that is then left without its parent ends soon, whatever W&B does."""
    for line in sys.stdin:
        messages.put(json.loads(line))
    messages.put(None)
    while os.getppid() == parent:
        time.sleep(POLL_SECONDS)
    signal.alarm(ORPHAN_SECONDS)


def main() -> None:
    """Carry out the order on stdin."""
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    answers = _take_over_output()

    def tell(**answer: Any) -> None:
        with suppress(OSError):
            print(json.dumps(answer), file=answers, flush=True)

    try:
        order = Order(**json.loads(sys.stdin.readline()))
        messages: queue.Queue[Any] = queue.Queue()
        threading.Thread(target=_read_messages, args=(messages, order.parent), daemon=True).start()
        send(order, messages, tell)
    except BaseException as error:  # noqa: BLE001 (whatever W&B raises is an answer)
        tell(failed=f"{type(error).__name__}: {error}")
        os._exit(1)
    os._exit(0)  # W&B's hooks at exit may wait for its server


if __name__ == "__main__":
    main()
