"""Where metrics go: JSON lines and a CSV always, Weights & Biases as a mirror that can never stop a run."""

import csv
import json
import os
import secrets
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from backbones.recipe import Recipe

METRICS = "metrics.jsonl"
SUMMARY = "summary.csv"
SUMMARY_COLUMNS: tuple[str, ...] = (
    "epoch", "step", "train/loss", "train/lr", "val/loss", "val/top1", "val/top5", "val_ema/loss",
    "val_ema/top1", "val_ema/top5",
)  # fmt: skip


class Tracker:
    """Writes rows of metrics keyed by the step; one per run, on rank 0."""

    def __init__(self, folder: Path, recipe: Recipe, *, wandb_id: str | None = None) -> None:
        self.folder = folder
        self.wandb = WandbMirror(folder, recipe, run_id=wandb_id) if recipe.log_wandb else None

    def log(self, step: int, metrics: dict[str, Any]) -> None:
        """Append one row to metrics.jsonl and mirror it."""
        with (self.folder / METRICS).open("a") as file:
            file.write(json.dumps({"step": step, **metrics}) + "\n")
        if self.wandb:
            self.wandb.log(step, metrics)

    def summarize(self, step: int, metrics: dict[str, Any]) -> None:
        """Append one row (a validated epoch) to summary.csv."""
        path = self.folder / SUMMARY
        is_new = not path.exists()
        with path.open("a", newline="") as file:
            writer = csv.DictWriter(file, SUMMARY_COLUMNS, extrasaction="ignore", restval="")
            if is_new:
                writer.writeheader()
            writer.writerow({"step": step, **metrics})

    def rewind(self, step: int) -> None:
        """Drop the rows after ``step``: a resumed run writes them again."""
        _keep_lines(self.folder / METRICS, lambda line: _is_up_to(line, step))
        column = SUMMARY_COLUMNS.index("step")
        _keep_lines(self.folder / SUMMARY, lambda line: _is_kept(line.rstrip("\n").split(","), column, step))

    def close(self) -> None:
        """Finish the W&B run, if there is one."""
        if self.wandb:
            self.wandb.close()


class WandbMirror:
    """A W&B run whose failures become one warning each, and then silence: training is never at risk."""

    def __init__(self, folder: Path, recipe: Recipe, *, run_id: str | None = None) -> None:
        self.run: Any = None
        self.id = run_id
        self.where = ""
        for mode in dict.fromkeys((recipe.log.wandb_mode, "offline")):  # offline can be synced later
            if self.run is None:
                self._guarded(lambda mode=mode: self._start(folder, recipe, mode))

    def log(self, step: int, metrics: dict[str, Any]) -> None:
        """Send one row; W&B's own step counter is not used, so that a resumed run may repeat a step."""
        if self.run is not None:
            self._guarded(lambda: self.run.log({"step": step, **metrics}))

    def close(self) -> None:
        """Upload what is left."""
        if self.run is not None:
            self._guarded(self.run.finish)

    def _start(self, folder: Path, recipe: Recipe, mode: str | None) -> None:
        import wandb  # noqa: PLC0415 (the only place, and only when asked for)

        os.environ["WANDB_SILENT"] = "true"  # a wandb that may speak may also ask, and wait for the answer
        self.id = self.id or secrets.token_hex(4)
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

    def _guarded(self, action: Callable[[], Any]) -> None:
        try:
            action()
        except Exception as error:  # noqa: BLE001 (whatever W&B raises, the run goes on)
            self.run = None
            warnings.warn(
                f"W&B failed ({type(error).__name__}: {error}); the run goes on and {METRICS} has every row.",
                stacklevel=2,
            )


def _keep_lines(path: Path, wanted: Callable[[str], bool]) -> None:
    if path.exists():
        lines = [line for line in path.read_text().splitlines(keepends=True) if wanted(line)]
        fresh = path.with_name(path.name + ".new")
        fresh.write_text("".join(lines))
        fresh.replace(path)


def _is_up_to(line: str, step: int) -> bool:
    try:
        return json.loads(line)["step"] <= step
    except ValueError:  # cut off when the run was killed
        return False


def _is_kept(cells: list[str], column: int, step: int) -> bool:
    whole = len(cells) == len(SUMMARY_COLUMNS)
    return whole and (not cells[column].isdigit() or int(cells[column]) <= step)
