"""Rows of metrics: JSON lines and a CSV always, Weights & Biases as a mirror that can never stop a run."""

import csv
import io
import json
import os
import secrets
import socket
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from PIL.Image import Image

from backbones.files import json_text, read_text, write_text
from backbones.recipe import Recipe

METRICS = "metrics.jsonl"
SUMMARY = "summary.csv"
PROBE_SECONDS = 2.0
"""Time to wait for an answer of the W&B server."""
PICTURES = "pictures"
"""Folder of the pictures, with a folder for each name."""
SUMMARY_COLUMNS: tuple[str, ...] = (
    "epoch", "step", "train/loss", "train/lr", "val/loss", "val/top1", "val/top5", "val_ema/loss",
    "val_ema/top1", "val_ema/top5",
)  # fmt: skip

Metrics = Mapping[str, "float | Image"]
"""Name -> number or picture."""


class Tracker:
    """Writer of the metrics of one run; on the first process only. Nothing is written before `open`."""

    def __init__(self, folder: Path, recipe: Recipe, *, wandb_id: str | None = None) -> None:
        self.folder = folder
        self.recipe = recipe
        self.wandb_id = wandb_id
        self.wandb: WandbMirror | None = None

    @contextmanager
    def open(self, step: int) -> Iterator[None]:
        """Drop the rows after ``step``, which a resumed run writes again, and mirror to W&B during the block."""
        self.rewind(step)
        if self.recipe.log_wandb:
            self.wandb = WandbMirror(self.folder, self.recipe, run_id=self.wandb_id)
            self.wandb_id = self.wandb.id
        try:
            yield
        finally:
            if self.wandb:
                self.wandb.close()

    def log(self, step: int, metrics: Metrics, *, kind: str = "") -> None:
        """Append one row of numbers to metrics.jsonl, write the pictures, and mirror both.

        Pictures of one step and different ``kind`` get files of their own.
        """
        pictures = {name: value for name, value in metrics.items() if isinstance(value, Image)}
        numbers = {name: _to_number(name, value) for name, value in metrics.items() if name not in pictures}
        with (self.folder / METRICS).open("a") as file:
            file.write(json_text({"step": step, **numbers}) + "\n")
        for name, picture in pictures.items():
            file = self.folder / PICTURES / name / f"{step:08d}{kind and '-'}{kind}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            picture.save(file)
        if self.wandb:
            self.wandb.log(step, numbers, pictures)

    def event(self, step: int, event: str, text: str, **numbers: float) -> None:
        """Append a row about something that happened, such as an alarm, and send a W&B alert."""
        with (self.folder / METRICS).open("a") as file:
            file.write(json_text({"step": step, "event": event, "text": text, **numbers}) + "\n")
        if self.wandb:
            self.wandb.alert(event, text)

    def summarize(self, step: int, metrics: Metrics) -> None:
        """Append one row (a validated epoch) to summary.csv."""
        path = self.folder / SUMMARY
        columns, _ = _read_summary(path)
        with path.open("a", newline="") as file:
            if not columns:
                file.write(_csv_line(SUMMARY_COLUMNS))
            row = {"step": step, **metrics}
            file.write(_csv_line([row.get(column, "") for column in columns or SUMMARY_COLUMNS]))

    def rewind(self, step: int) -> None:
        """Drop rows and pictures after ``step``, and what a kill cut off. Rows and columns of other versions stay."""
        metrics, summary = self.folder / METRICS, self.folder / SUMMARY
        if metrics.exists():
            rows = [row for line in read_text(metrics).splitlines() for row in _parse_row(line)]
            kept = [row for row in rows if not isinstance(row, dict) or _is_up_to(row.get("step"), step)]
            write_text(metrics, "".join(json_text(row) + "\n" for row in kept))
        for picture in (self.folder / PICTURES).rglob("*.png"):
            if not _is_up_to(picture.stem.partition("-")[0], step):
                picture.unlink()
        columns, rows = _read_summary(summary)
        if columns:
            header = [*SUMMARY_COLUMNS, *(column for column in columns if column not in SUMMARY_COLUMNS)]
            kept = [row for row in rows if _is_up_to(row.get("step"), step)]
            lines = [_csv_line([row.get(column, "") for column in header]) for row in kept]
            write_text(summary, "".join([_csv_line(header), *lines]))
        else:
            summary.unlink(missing_ok=True)


class WandbMirror:
    """A W&B run whose failures become one warning each, and then silence: training is never at risk."""

    def __init__(self, folder: Path, recipe: Recipe, *, run_id: str | None = None) -> None:
        self.run: Any = None
        self.id = run_id
        self.where = ""
        self.attempts = 0
        for mode in dict.fromkeys((recipe.log.wandb_mode, "offline")):  # offline can be synced later
            if self.run is None:
                self._attempt(lambda mode=mode: self._start(folder, recipe, mode))

    def log(self, step: int, numbers: Mapping[str, Any], pictures: Mapping[str, Image]) -> None:
        """Send one row; W&B's own step counter is not used, so that a resumed run may repeat a step."""
        if self.run is not None:
            self._attempt(lambda: self.run.log({"step": step, **numbers, **_for_wandb(pictures)}))

    def alert(self, title: str, text: str) -> None:
        """Send a message to whoever watches the run."""
        if self.run is not None:
            self._attempt(lambda: self.run.alert(title=title, text=text))

    def close(self) -> None:
        """Upload what is left."""
        if self.run is not None:
            self._attempt(self.run.finish)

    def _start(self, folder: Path, recipe: Recipe, mode: str | None) -> None:
        import wandb  # noqa: PLC0415 (only when asked for)

        os.environ["WANDB_SILENT"] = "true"  # a wandb that may speak may also ask, and wait for the answer
        self.id = self.id or secrets.token_hex(4)
        self.attempts += 1
        if self.attempts > 1:
            wandb.teardown()  # an attempt that failed still holds the id
        if (mode or os.environ.get("WANDB_MODE", "online")) == "online":
            _require_reachable(str(wandb.setup().settings.base_url))
        self.run = wandb.init(
            project=recipe.log.wandb_project,
            name=folder.name,
            id=self.id,
            resume="allow",
            dir=str(folder),
            mode=mode,  # type: ignore[arg-type]
            config=recipe.to_dict(),
            settings=wandb.Settings(init_timeout=15),
        )
        self.where = self.run.url or self.run.dir
        self.run.define_metric("step")
        self.run.define_metric("*", step_metric="step")

    def _attempt(self, action: Callable[[], Any]) -> None:
        try:
            action()
        except Exception as error:  # noqa: BLE001 (whatever W&B raises, the run goes on)
            self.run = None
            warnings.warn(
                f"W&B failed ({type(error).__name__}: {error}); the run goes on and {METRICS} has every row.",
                stacklevel=2,
            )


def _require_reachable(url: str) -> None:
    """Raise OSError where nothing answers at ``url``; W&B itself would try for a quarter of a minute."""
    parts = urlsplit(url)
    if not any(name.lower().endswith("s_proxy") or name.lower() == "all_proxy" for name in os.environ):
        port = parts.port or {"http": 80}.get(parts.scheme, 443)
        socket.create_connection((parts.hostname or "", port), timeout=PROBE_SECONDS).close()


def _for_wandb(pictures: Mapping[str, Image]) -> dict[str, Any]:
    import wandb  # noqa: PLC0415 (as above)

    return {name: wandb.Image(picture) for name, picture in pictures.items()}


def _to_number(name: str, value: Any) -> Any:
    """Return a number, also from a tensor or array with one element."""
    if value is None or isinstance(value, (int, float, str)):
        return value
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"the metric {name} is {type(value).__name__}, neither a number nor a picture") from None


def _parse_row(line: str) -> Iterator[Any]:
    """Yield the row of a line of metrics.jsonl; nothing for a line that was cut off when the run was killed."""
    with suppress(ValueError):
        yield json.loads(line)


def _read_summary(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Return the columns and the whole rows of summary.csv, by its own header; two empty lists where it has none."""
    text = read_text(path).replace("\r\n", "\n") if path.exists() else ""
    whole, end, _cut_off = text.rpartition("\n")
    header, *rows = list(csv.reader(io.StringIO(whole + end))) or [[]]
    return header, [dict(zip(header, row, strict=True)) for row in rows if len(row) == len(header)]


def _csv_line(cells: Sequence[Any]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(cells)
    return line.getvalue()


def _is_up_to(value: Any, step: int) -> bool:
    """Return whether a row belongs to the steps up to ``step``; a row without a step always does."""
    try:
        return int(value) <= step
    except (TypeError, ValueError):
        return True
