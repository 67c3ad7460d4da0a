"""Rows reach the files always, and W&B never gets in the way."""

import csv
import json

import pytest
import wandb

from backbones.recipe import Log, Recipe
from backbones.training.tracking import Tracker


def rows(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def summary(folder) -> list[dict]:
    with (folder / "summary.csv").open() as file:
        return list(csv.DictReader(file))


def test_every_row_is_a_json_line_with_its_step(tmp_path):
    tracker = Tracker(tmp_path, Recipe())
    tracker.log(5, {"train/loss": 1.5})
    tracker.log(6, {"val/top1": 50.0})
    assert rows(tmp_path) == [{"step": 5, "train/loss": 1.5}, {"step": 6, "val/top1": 50.0}]


def test_the_summary_has_one_header_and_empty_cells_for_what_is_unknown(tmp_path):
    for step in (5, 6):
        Tracker(tmp_path, Recipe()).summarize(step, {"epoch": 1.0, "val/top1": 50.0, "other": 1})
    assert [(row["step"], row["val/top1"], row["val_ema/top1"]) for row in summary(tmp_path)] == [
        ("5", "50.0", ""),
        ("6", "50.0", ""),
    ]


def test_a_resumed_run_rewrites_only_what_comes_after_its_step(tmp_path):
    tracker = Tracker(tmp_path, Recipe())
    for step in (10, 20, 30):
        tracker.log(step, {"train/loss": 1.0})
        tracker.summarize(step, {"epoch": step / 10})
    tracker.rewind(20)
    assert [row["step"] for row in rows(tmp_path)] == [10, 20]
    assert [row["step"] for row in summary(tmp_path)] == ["10", "20"]


def test_a_line_that_was_cut_off_when_the_run_was_killed_is_dropped(tmp_path):
    tracker = Tracker(tmp_path, Recipe())
    tracker.log(10, {"train/loss": 1.0})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 20, "train/lo')
    tracker.rewind(20)
    assert rows(tmp_path) == [{"step": 10, "train/loss": 1.0}]


def test_wandb_offline_writes_a_run(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_SILENT", "true")
    recipe = Recipe(log_wandb=True, log=Log(wandb_mode="offline"))
    tracker = Tracker(tmp_path, recipe)
    tracker.log(1, {"train/loss": 2.0})
    tracker.close()
    wandb.teardown()  # its process has flushed the file when it is gone
    (written,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    assert b"train/loss" in written.read_bytes()
    assert tracker.wandb is not None
    assert tracker.wandb.id in written.name


def test_wandb_that_fails_to_start_is_one_warning(tmp_path, monkeypatch):
    def refuse(**_):
        raise wandb.errors.CommError("no route to host")

    monkeypatch.setattr(wandb, "init", refuse)
    with pytest.warns(UserWarning, match=r"W&B failed .*no route to host.*the run goes on"):
        tracker = Tracker(tmp_path, Recipe(log_wandb=True))
    tracker.log(1, {"train/loss": 2.0})
    tracker.close()
    assert rows(tmp_path) == [{"step": 1, "train/loss": 2.0}]


def test_wandb_out_of_reach_goes_on_offline(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_SILENT", "true")
    start = wandb.init

    def only_offline(**settings):
        if settings["mode"] != "offline":
            raise wandb.errors.CommError("no route to host")
        return start(**settings)

    monkeypatch.setattr(wandb, "init", only_offline)
    with pytest.warns(UserWarning, match="no route to host"):
        tracker = Tracker(tmp_path, Recipe(log_wandb=True))
    tracker.log(1, {"train/loss": 2.0})
    tracker.close()
    assert list(tmp_path.glob("wandb/offline-run-*/*.wandb"))


def test_wandb_that_dies_in_the_middle_is_one_warning_and_every_row_is_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_SILENT", "true")
    tracker = Tracker(tmp_path, Recipe(log_wandb=True, log=Log(wandb_mode="offline")))
    assert tracker.wandb is not None
    tracker.wandb.run.finish()
    with pytest.warns(UserWarning, match="W&B failed"):
        tracker.log(1, {"train/loss": 2.0})
    tracker.log(2, {"train/loss": 1.0})
    assert [row["step"] for row in rows(tmp_path)] == [1, 2]
