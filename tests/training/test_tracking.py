"""Rows reach the files always."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from backbones.recipe import Recipe
from backbones.training import tracking
from backbones.training.tracking import Tracker
from backbones.training.wandb_sender import Ledger, read_ledger, write_ledger


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


class FakeMirror:
    """Stand-in for the W&B mirror that notes what it is told, and how many rows there were then."""

    id = "x"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.calls: list[tuple[str, int]] = []

    def poll(self) -> None:
        self.calls.append(("poll", len(rows(self.folder))))

    def close(self, seconds: float) -> None:
        self.calls.append((f"close {seconds:g}", len(rows(self.folder))))

    def start(self) -> None:
        self.calls.append(("start", len(rows(self.folder))))


@pytest.fixture
def mirrored(tmp_path, monkeypatch) -> tuple[Tracker, FakeMirror]:
    """A tracker whose run is mirrored to W&B, seemingly."""
    mirror = FakeMirror(tmp_path)
    monkeypatch.setattr(tracking, "WandbMirror", lambda *_, **__: mirror)
    return Tracker(tmp_path, Recipe(log_wandb=True)), mirror


def test_the_mirror_looks_for_a_row_when_it_is_there(mirrored):
    tracker, mirror = mirrored
    with tracker.open(0):
        tracker.log(1, {"train/loss": 1.0})
    assert mirror.calls == [("poll", 1), ("close 30", 1)]


def test_a_run_that_is_stopped_does_not_wait_long_for_wandb(mirrored):
    tracker, mirror = mirrored
    tracker.log(1, {"train/loss": 1.0})
    with pytest.raises(KeyboardInterrupt), tracker.open(1):
        raise KeyboardInterrupt
    assert mirror.calls == [("close 5", 1)]


def test_rows_are_dropped_while_nobody_sends_them(mirrored):
    tracker, mirror = mirrored
    with tracker.open(0):
        for step in (1, 2, 3):
            tracker.log(step, {})
        tracker.rewind(1)
    assert mirror.calls[3:] == [("close 5", 3), ("start", 1), ("close 30", 1)]


def test_rows_that_were_dropped_are_not_taken_for_sent(tmp_path):
    tracker = Tracker(tmp_path, Recipe())
    for step in (1, 2, 3):
        tracker.log(step, {})
    write_ledger(tmp_path, "online", Ledger("x", rows=3, step=7, complete=True))
    tracker.rewind(1)
    assert read_ledger(tmp_path, "online") == Ledger("x", rows=1, step=7, complete=True)


def test_a_picture_is_there_before_its_row(tmp_path, monkeypatch):
    """The mirror looks for the pictures of a step once its row has come."""
    seen: list[bool] = []
    save = Image.Image.save
    metrics = tmp_path / "metrics.jsonl"
    monkeypatch.setattr(Image.Image, "save", lambda *words: seen.append(metrics.exists()) or save(*words))
    Tracker(tmp_path, Recipe()).log(7, {"map": Image.new("RGB", (3, 2))})
    assert seen == [False]
    assert metrics.exists()
