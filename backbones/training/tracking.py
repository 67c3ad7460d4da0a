"""Rows of metrics: JSON lines and a CSV always, and Weights & Biases as a mirror (`wandb_mirror`)."""

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from PIL.Image import Image

from backbones.files import json_text, read_text, write_text
from backbones.recipe import Recipe
from backbones.training.wandb_mirror import FINISH_SECONDS, HASTY_SECONDS, WandbMirror
from backbones.training.wandb_sender import METRICS, PICTURES, count_rows, forget_rows

SUMMARY = "summary.csv"
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
        seconds = HASTY_SECONDS
        try:
            yield
            seconds = FINISH_SECONDS
        finally:
            if self.wandb:
                self.wandb.close(seconds)

    def log(self, step: int, metrics: Metrics, *, kind: str = "") -> None:
        """Write the pictures and append one row of numbers to metrics.jsonl, from where W&B gets both.

        Pictures of one step and different ``kind`` get files of their own.
        """
        pictures = {name: value for name, value in metrics.items() if isinstance(value, Image)}
        numbers = {name: _to_number(name, value) for name, value in metrics.items() if name not in pictures}
        for name, picture in pictures.items():
            file = self.folder / PICTURES / name / f"{step:08d}{kind and '-'}{kind}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            picture.save(file)
        with (self.folder / METRICS).open("a") as file:  # after its pictures, which are looked for when it is there
            file.write(json_text({"step": step, **numbers}) + "\n")
        if self.wandb:
            self.wandb.poll()

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
        if self.wandb:
            self.wandb.close(HASTY_SECONDS)
        _rewind_metrics(self.folder / METRICS, step)
        _rewind_summary(self.folder / SUMMARY, step)
        for picture in (self.folder / PICTURES).rglob("*.png"):
            if not _is_up_to(picture.stem.partition("-")[0], step):
                picture.unlink()
        forget_rows(self.folder, count_rows(self.folder))
        if self.wandb:
            self.wandb.start()


def _rewind_metrics(path: Path, step: int) -> None:
    if path.exists():
        rows = [row for line in read_text(path).splitlines() for row in _parse_row(line)]
        kept = [row for row in rows if not isinstance(row, dict) or _is_up_to(row.get("step"), step)]
        write_text(path, "".join(json_text(row) + "\n" for row in kept))


def _rewind_summary(path: Path, step: int) -> None:
    columns, rows = _read_summary(path)
    if columns:
        header = [*SUMMARY_COLUMNS, *(column for column in columns if column not in SUMMARY_COLUMNS)]
        kept = [row for row in rows if _is_up_to(row.get("step"), step)]
        lines = [_csv_line([row.get(column, "") for column in header]) for row in kept]
        write_text(path, "".join([_csv_line(header), *lines]))
    else:
        path.unlink(missing_ok=True)


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
