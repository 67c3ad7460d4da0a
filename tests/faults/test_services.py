"""Rows 32 to 35: W&B that does not answer or dies, and a clock that jumps."""

import json
import time

import psutil
import pytest

from backbones.recipe import Recipe
from backbones.training import loop
from backbones.training.loop import train_epoch
from backbones.training.tracking import METRICS, Tracker
from tests.faults.small_runs import rows, train

pytestmark = pytest.mark.usefixtures("fresh_accelerate")


@pytest.fixture(autouse=True)
def _own_wandb(monkeypatch, tmp_path):
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))


def has_all_rows(data) -> bool:
    return [row["step"] for row in rows(data)] == [1, 2, 3, 4, 4]


@pytest.mark.fault(32)
def test_a_server_that_cannot_be_reached_costs_no_row_and_is_one_warning(data, monkeypatch, capsys):
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    train(data, "--log-wandb")
    assert has_all_rows(data)
    printed = capsys.readouterr()
    assert printed.out.count("warning     W&B failed") == 1
    assert "python -m backbones replay" in printed.out
    assert "Traceback" not in printed.out + printed.err


@pytest.mark.fault(33)
@pytest.mark.slow
def test_a_wandb_process_that_is_killed_costs_no_row(data, monkeypatch, capfd):
    monkeypatch.setenv("WANDB_MODE", "offline")

    def kill_first(run, batches):
        for child in psutil.Process().children(recursive=True):
            if "wandb" in " ".join(child.cmdline()):
                child.kill()
        train_epoch(run, batches)

    monkeypatch.setattr(loop, "train_epoch", kill_first)
    train(data, "--log-wandb")
    assert has_all_rows(data)
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.fault(34)
def test_rows_after_a_rewind_are_written_again_and_not_dropped(tmp_path):
    """The file is ours, and a step may be lower than the one before."""
    tracker = Tracker(tmp_path, Recipe())
    for step in (1, 2, 3):
        tracker.log(step, {"x": step})
    tracker.rewind(1)
    tracker.log(2, {"x": 20})
    kept = [json.loads(line) for line in (tmp_path / METRICS).read_text().splitlines()]
    assert kept == [{"step": 1, "x": 1}, {"step": 2, "x": 20}]


@pytest.mark.fault(35)
def test_a_clock_that_jumps_back_an_hour_changes_no_rate_and_no_checkpoint(data, monkeypatch):
    """Durations come from a clock that cannot be set."""
    real, calls = time.time, [0]

    def jumping() -> float:
        calls[0] += 1
        return real() - (3600 if calls[0] > 3 else 0)

    monkeypatch.setattr(time, "time", jumping)
    train(data)
    logged = rows(data)[:-1]
    assert all(row["perf/images_per_second"] > 0 for row in logged)
    assert all(0 <= row["perf/data_wait"] <= 1 for row in logged)
