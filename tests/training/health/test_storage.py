"""A disk that fills up and a checkpoint that is not written are told before they cost anything."""

import os
from types import SimpleNamespace

import pytest

from backbones.recipe import Saving
from backbones.training.health.monitor import Finding, Row
from backbones.training.health.storage import CheckpointAge, DiskSpace


@pytest.fixture
def minutes(monkeypatch):
    """The function that moves the clock."""
    now = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])

    def move(count: float) -> None:
        now[0] += 60 * count

    return move


@pytest.fixture
def free(monkeypatch):
    """The function that sets the free space."""

    def give(size: int) -> None:
        monkeypatch.setattr("shutil.disk_usage", lambda _folder: SimpleNamespace(free=size))

    return give


def write_last(folder, size: int = 1000, *, time: int = 1) -> None:
    (folder / "last").mkdir(exist_ok=True)
    (folder / "last" / "model.safetensors").write_bytes(bytes(size - 2))
    (folder / "last" / "manifest.json").write_text("{}")
    os.utime(folder / "last" / "manifest.json", ns=(time, time))


def look(monitor, step: int = 100) -> list[Finding] | None:
    assert monitor.collect(step) is None
    return monitor.judge(Row(step), [])


def test_less_than_three_checkpoints_free_is_too_little(tmp_path, minutes, free):
    write_last(tmp_path)
    monitor = DiskSpace(tmp_path)
    found = []
    for size in (3001, 2999, 3999, 4001, 3001):
        free(size)
        found.append(len(look(monitor) or []))
        minutes(1)
    assert found == [0, 1, 1, 0, 0]


def test_the_disk_is_looked_at_once_a_minute(tmp_path, minutes, free):
    write_last(tmp_path)
    free(10)
    monitor = DiskSpace(tmp_path)
    (found,) = look(monitor) or []
    assert found.alarm == "disk_space"
    assert found.numbers == {"free_bytes": 10, "checkpoints": 0.01}
    assert look(monitor) is None
    minutes(1)
    assert look(monitor)


def test_before_the_first_checkpoint_the_space_is_enough(tmp_path, minutes, free):
    free(0)
    assert look(DiskSpace(tmp_path)) == []


def test_a_disk_that_cannot_be_asked_is_no_alarm_and_no_error(tmp_path, minutes, monkeypatch):
    def fail(_folder):
        raise OSError("stale file handle")

    write_last(tmp_path)
    monkeypatch.setattr("shutil.disk_usage", fail)
    assert look(DiskSpace(tmp_path)) == []


def test_a_checkpoint_older_than_twice_its_interval_is_too_old(tmp_path, minutes):
    write_last(tmp_path)
    monitor = CheckpointAge(tmp_path, Saving(ckpt_minutes=10))
    assert look(monitor) == []
    minutes(20)
    assert look(monitor, 300) == []
    minutes(1)
    (found,) = look(monitor, 400) or []
    assert found.text == "no checkpoint was written for 21 minutes and 300 steps"
    write_last(tmp_path, time=2)
    minutes(1)
    assert look(monitor) == []
    minutes(20)
    assert look(monitor) == []


def test_the_interval_may_be_steps(tmp_path, minutes):
    monitor = CheckpointAge(tmp_path, Saving(ckpt_minutes=None, ckpt_every=100))
    found = []
    for step in (50, 250, 251, 252, 450, 453):
        if step == 252:
            write_last(tmp_path, time=2)
        found.append(len(look(monitor, step) or []))
        minutes(1)
    assert found == [0, 0, 1, 0, 0, 1]


def test_without_an_interval_no_checkpoint_is_too_old(tmp_path, minutes):
    monitor = CheckpointAge(tmp_path, Saving(ckpt_minutes=None))
    assert look(monitor) == []
    minutes(10_000)
    assert look(monitor, 1_000_000) == []


def test_after_a_restart_the_age_is_counted_anew(tmp_path, minutes):
    """A run that goes on from a checkpoint of yesterday is not late."""
    write_last(tmp_path)
    monitor = CheckpointAge(tmp_path, Saving(ckpt_minutes=10))
    look(monitor)
    minutes(60)
    monitor.restart()
    assert look(monitor, 5000) == []
