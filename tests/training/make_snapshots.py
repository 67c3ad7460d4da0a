"""Runs of a four-layer network that are saved to a folder and go on from there."""

import json
from typing import Any

from backbones.recipe import Log, Recipe
from backbones.training.loop import Run
from backbones.training.resume import read_state
from backbones.training.snapshot import Snapshots
from backbones.training.tracking import Tracker
from tests import accelerate_state
from tests.training.make_runs import make_run, network


def snapshots_in(folder, **fields) -> Snapshots:
    recipe = fields.pop("recipe", Recipe(log=Log(interval=3)))
    return Snapshots(folder, recipe, ("a", "b", "c"), "images", "validation", **fields)


def run_in(folder, *, resume: bool = False, options: dict[str, Any] | None = None, **fields) -> tuple[Run, bool]:
    """Return a run of four steps per epoch with a moving average and dropout, and whether it owes a validation."""
    accelerate_state.reset()
    folder.mkdir(exist_ok=True)
    recipe = Recipe(log=Log(interval=3), resume=str(folder) if resume else None, **(options or {}))
    writer = snapshots_in(folder, recipe=recipe)
    tracker = Tracker(folder, recipe)
    model = fields.pop("model", None) or network(dropout=0.5)
    run = make_run(model, ema=True, recipe=recipe, checkpoints=writer, tracker=tracker, **fields)
    state, _ = read_state(recipe, folder, run.accelerator, train="images", val="validation")
    if resume:
        writer.restore(run, state)
        tracker.rewind(run.step)
    return run, state["owes_validation"]


def save(run: Run, *, owes_validation: bool = False) -> None:
    """Write the checkpoint and wait for it."""
    run.checkpoints.write_last(run, {}, owes_validation=owes_validation)
    run.checkpoints.writer.settle()  # type: ignore[attr-defined]


def rows(folder) -> list[dict]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{key: value for key, value in json.loads(line).items() if "perf/" not in key} for line in lines]
