"""The heartbeat goes on while the training thread is busy elsewhere."""

import json
import threading
import time

import pytest

from backbones.recipe import Log, Recipe
from backbones.training.health import heartbeat
from backbones.training.health.health import Health
from backbones.training.health.heartbeat import beating
from backbones.training.loop import fit
from tests.training.make_runs import make_run, validation


@pytest.fixture
def _fast(monkeypatch):
    monkeypatch.setattr(heartbeat, "BEAT_SECONDS", 0.02)


def wait_for_time_after(file, moment: float) -> dict:
    for _ in range(500):
        beat = json.loads(file.read_text()) if file.exists() else {"time": 0.0}
        if beat["time"] > moment:
            return beat
        time.sleep(0.01)
    raise AssertionError(f"no beat after {moment}")


@pytest.mark.usefixtures("_fast", "fresh_accelerate")
def test_it_beats_through_a_validation(tmp_path):
    beats = []

    class Slow(list):
        n = 24

        def __iter__(self):
            beats.append(wait_for_time_after(tmp_path / "heartbeat.json", time.time()))
            return iter(validation())

    run = make_run(val_batches=Slow(), recipe=Recipe(log=Log(interval=3)))
    run.report.health = Health(folder=tmp_path)
    fit(run)
    assert [beat["step"] for beat in beats] == [4, 8]
    assert all(0 < beat["loss"] < 10 for beat in beats)
    last = json.loads((tmp_path / "heartbeat.json").read_text())
    assert (last["step"], last["loss"]) == (8, run.report.last_loss)


@pytest.mark.usefixtures("_fast")
def test_before_the_first_row_there_is_no_loss(tmp_path):
    with beating(tmp_path / "heartbeat.json", lambda: (7, None)):
        beat = wait_for_time_after(tmp_path / "heartbeat.json", 0)
    assert (beat["step"], beat["loss"]) == (7, None)
    assert abs(beat["time"] - time.time()) < 60


@pytest.mark.usefixtures("_fast")
def test_a_disk_that_cannot_be_written_ends_nothing(tmp_path):
    with beating(tmp_path / "missing" / "heartbeat.json", lambda: (7, None)):
        time.sleep(0.1)
        assert "heartbeat" in [thread.name for thread in threading.enumerate()]


@pytest.mark.usefixtures("_fast")
def test_an_error_ends_the_thread(tmp_path):
    with pytest.raises(InterruptedError), beating(tmp_path / "heartbeat.json", lambda: (7, None)):
        raise InterruptedError
    assert "heartbeat" not in [thread.name for thread in threading.enumerate()]


def test_it_is_written_every_30_seconds():
    assert heartbeat.BEAT_SECONDS == 30
