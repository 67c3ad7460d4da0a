"""Rows reach the files always, and W&B never gets in the way."""

import csv
import json

import numpy as np
import pytest
import torch
import wandb
from PIL import Image

from backbones.recipe import Log, Recipe
from backbones.training import tracking
from backbones.training.tracking import Tracker


@pytest.fixture
def reachable(monkeypatch):
    """The W&B server seems to answer."""
    monkeypatch.setattr(tracking, "_require_reachable", lambda _url: None)


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
    with tracker.open(0):
        tracker.log(1, {"train/loss": 2.0})
    wandb.teardown()  # its process has flushed the file when it is gone
    (written,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    assert b"train/loss" in written.read_bytes()
    assert str(tracker.wandb_id) in written.name


def test_wandb_that_fails_to_start_is_one_warning(tmp_path, monkeypatch, reachable):
    def refuse(**_):
        raise wandb.errors.CommError("no route to host")

    monkeypatch.setattr(wandb, "init", refuse)
    tracker = Tracker(tmp_path, Recipe(log_wandb=True))
    with pytest.warns(UserWarning, match=r"W&B failed .*no route to host.*the run goes on"), tracker.open(0):
        tracker.log(1, {"train/loss": 2.0})
    assert rows(tmp_path) == [{"step": 1, "train/loss": 2.0}]


def test_wandb_out_of_reach_goes_on_offline(tmp_path, monkeypatch, reachable):
    monkeypatch.setenv("WANDB_SILENT", "true")
    start = wandb.init

    def only_offline(**settings):
        if settings["mode"] != "offline":
            raise wandb.errors.CommError("no route to host")
        return start(**settings)

    monkeypatch.setattr(wandb, "init", only_offline)
    tracker = Tracker(tmp_path, Recipe(log_wandb=True))
    with pytest.warns(UserWarning, match="no route to host"), tracker.open(0):
        tracker.log(1, {"train/loss": 2.0})
    assert list(tmp_path.glob("wandb/offline-run-*/*.wandb"))


def test_wandb_that_dies_in_the_middle_is_one_warning_and_every_row_is_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_SILENT", "true")
    tracker = Tracker(tmp_path, Recipe(log_wandb=True, log=Log(wandb_mode="offline")))
    with tracker.open(0):
        assert tracker.wandb is not None
        tracker.wandb.run.finish()
        with pytest.warns(UserWarning, match="W&B failed"):
            tracker.log(1, {"train/loss": 2.0})
        tracker.log(2, {"train/loss": 1.0})
    assert [row["step"] for row in rows(tmp_path)] == [1, 2]


def write_summary(folder, *lines: str) -> None:
    (folder / "summary.csv").write_text("".join(line + "\n" for line in lines))


def test_a_summary_of_another_version_keeps_its_rows_and_gets_the_new_header(tmp_path):
    """One column that this version does not know, and most that it knows are missing."""
    write_summary(tmp_path, "step,val/top1,speed", "10,50.5,99", "20,60.5,98", "30,70.5,97")
    tracker = Tracker(tmp_path, Recipe())
    tracker.rewind(20)
    tracker.summarize(30, {"val/top1": 71.5, "val/top5": 90.0})
    found = [(row["step"], row["val/top1"], row["val/top5"], row["speed"]) for row in summary(tmp_path)]
    assert found == [("10", "50.5", "", "99"), ("20", "60.5", "", "98"), ("30", "71.5", "90.0", "")]
    assert (tmp_path / "summary.csv").read_text().startswith("epoch,step,train/loss,")


def test_a_summary_without_steps_loses_no_row(tmp_path):
    write_summary(tmp_path, "day,note", "monday,x")
    Tracker(tmp_path, Recipe()).rewind(20)
    assert [(row["day"], row["note"], row["step"]) for row in summary(tmp_path)] == [("monday", "x", "")]


@pytest.mark.parametrize("cut", ["step,val/top1\n10,50.5\n20,60.", "step,val/top1\n10,50.5\n20"])
def test_a_summary_cut_in_the_middle_of_a_row_loses_only_that_row(tmp_path, cut):
    (tmp_path / "summary.csv").write_text(cut)
    Tracker(tmp_path, Recipe()).rewind(20)
    assert [row["step"] for row in summary(tmp_path)] == ["10"]


def test_a_summary_cut_in_its_header_begins_anew(tmp_path):
    (tmp_path / "summary.csv").write_text("epoch,st")
    tracker = Tracker(tmp_path, Recipe())
    tracker.rewind(20)
    tracker.summarize(30, {"val/top1": 1.0})
    assert [row["val/top1"] for row in summary(tmp_path)] == ["1.0"]


def test_rows_of_metrics_without_a_step_or_with_other_keys_stay(tmp_path):
    lines = ['{"event": "moved"}', '{"step": 10, "other/metric": 1}', '{"step": 30, "train/loss": 1}', "7"]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
    Tracker(tmp_path, Recipe()).rewind(20)
    assert rows(tmp_path) == [{"event": "moved"}, {"step": 10, "other/metric": 1}, 7]


def test_values_that_are_not_finite_are_null(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "train/loss": NaN}\n')
    tracker = Tracker(tmp_path, Recipe())
    tracker.rewind(5)
    tracker.log(6, {"train/loss": float("inf")})
    assert "NaN" not in (tmp_path / "metrics.jsonl").read_text()
    assert [row["train/loss"] for row in rows(tmp_path)] == [None, None]


def test_a_picture_becomes_a_file_and_no_json(tmp_path):
    Tracker(tmp_path, Recipe()).log(7, {"fusion/map": Image.new("RGB", (3, 2)), "n": 1})
    assert rows(tmp_path) == [{"step": 7, "n": 1}]
    with Image.open(tmp_path / "pictures" / "fusion" / "map" / "00000007.png") as picture:
        assert picture.size == (3, 2)


def test_wandb_gets_pictures_too(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_SILENT", "true")
    tracker = Tracker(tmp_path, Recipe(log_wandb=True, log=Log(wandb_mode="offline")))
    with tracker.open(0):
        tracker.log(1, {"batch": Image.new("RGB", (3, 2))})
    assert list(tmp_path.glob("wandb/offline-run-*/files/media/images/batch_*.png"))


def test_pictures_of_one_step_at_two_moments_are_two_files_and_a_resume_drops_later_ones(tmp_path):
    tracker = Tracker(tmp_path, Recipe())
    for step in (20, 30):
        tracker.log(step, {"map": Image.new("RGB", (3, 2))})
        tracker.log(step, {"map": Image.new("RGB", (3, 2))}, kind="validation")
    tracker.rewind(20)
    assert sorted(path.name for path in (tmp_path / "pictures" / "map").iterdir()) == [
        "00000020-validation.png", "00000020.png",
    ]  # fmt: skip


def test_tensors_and_arrays_with_one_number_are_numbers(tmp_path):
    Tracker(tmp_path, Recipe()).log(1, {"a": torch.tensor(2.5), "b": np.float32(0.5), "c": torch.tensor([3])})
    assert rows(tmp_path) == [{"step": 1, "a": 2.5, "b": 0.5, "c": 3.0}]


def test_a_metric_that_is_no_number_is_named(tmp_path):
    with pytest.raises(TypeError, match="the metric fusion is Tensor, neither a number nor a picture"):
        Tracker(tmp_path, Recipe()).log(1, {"fusion": torch.zeros(2)})


def test_bytes_that_are_no_text_survive_a_resume(tmp_path):
    (tmp_path / "summary.csv").write_bytes(b"step,note\r\n10,caf\xe9\r\n")
    (tmp_path / "metrics.jsonl").write_bytes(b'{"step": 10, "note": "caf\xe9"}\n[1, 2]\n')
    Tracker(tmp_path, Recipe()).rewind(20)
    assert b"caf\xe9" in (tmp_path / "summary.csv").read_bytes()
    assert len((tmp_path / "metrics.jsonl").read_bytes().splitlines()) == 2


def test_a_server_that_does_not_answer_is_not_waited_for_and_the_run_is_kept_offline(tmp_path, monkeypatch):
    """W&B itself would try for 15 seconds, and then refuse to go on offline: "run ID is in use"."""
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    wandb.teardown()
    modes: list[str | None] = []
    start = wandb.init
    monkeypatch.setattr(wandb, "init", lambda **settings: modes.append(settings["mode"]) or start(**settings))
    tracker = Tracker(tmp_path, Recipe(log_wandb=True))
    with pytest.warns(UserWarning, match=r"W&B failed \(ConnectionRefusedError"), tracker.open(0):
        tracker.log(1, {"train/loss": 2.0})
    wandb.teardown()
    assert modes == ["offline"]
    (written,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    assert b"train/loss" in written.read_bytes()
