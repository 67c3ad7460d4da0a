"""The watchdog ends a process that makes no progress, and no other."""

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from backbones.training import watchdog
from backbones.training.watchdog import Watchdog
from tests.tiny_runs import TINY

ROOT = Path(__file__).parents[2]


@pytest.fixture
def ended(monkeypatch) -> threading.Event:
    """Set when the watchdog ends the process."""
    monkeypatch.setattr(watchdog, "POLL_SECONDS", 0.01)
    return threading.Event()


def test_a_process_without_progress_is_ended_and_says_where_it_hangs(ended, capfd):
    order: list[str] = []
    dog = Watchdog(3, limit=0.05, end=ended.set)
    dog.before_end = lambda: order.append("status written")
    dog.beat("step 7")
    with dog.watching():
        assert ended.wait(timeout=30)
    assert order == ["status written"]
    message = capfd.readouterr().err
    assert "error (rank 3 on " in message
    assert "no progress for 0 s in step 7 (--timeout, --first-timeout)" in message
    assert "test_watchdog.py" in message  # the place of this thread


def test_a_process_that_goes_on_is_left_alone(ended):
    dog = Watchdog(0, limit=5.0, end=ended.set)
    with dog.watching():
        for _ in range(20):
            dog.waited = 4.99
            dog.beat("step 1")
            assert dog.waited < 1
            assert not ended.wait(timeout=0.005)


def test_nothing_is_watched_after_the_block(ended):
    dog = Watchdog(0, limit=0.2, end=ended.set)
    with dog.watching():
        pass
    assert not ended.wait(timeout=0.5)


def test_time_in_which_the_process_was_stopped_does_not_count(ended):
    """The thread counts its own looks, not a clock: a process that was stopped for an hour has looked no more often."""
    dog = Watchdog(0, limit=1e9, end=ended.set)
    with dog.watching():
        ended.wait(timeout=0.1)
    assert 0.01 <= dog.waited <= 0.2


@pytest.mark.slow
def test_a_run_whose_data_never_comes_is_ended_with_its_status(image_folder, tmp_path):
    code = (
        "import sys, time, train_imagenet\n"
        "from backbones.data.loader import TrainLoader\n"
        "original = TrainLoader.from_step\n"
        "def hang(self, step):\n"
        "    for number, batch in enumerate(original(self, step)):\n"
        "        if number == 2: time.sleep(3600)\n"
        "        yield batch\n"
        "TrainLoader.from_step = hang\n"
        "train_imagenet.main(sys.argv[1:])\n"
    )
    words = [*TINY, "--data-dir", str(image_folder), "--output", str(tmp_path / "run"), "--timeout", "2"]
    command = [sys.executable, "-c", code, *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == watchdog.HUNG
    assert "no progress for" in done.stderr
    assert "in step 3" in done.stderr
    assert "hang" in done.stderr
    status = json.loads((tmp_path / "run" / "status.json").read_text())
    assert (status["state"], status["step"]) == ("failed", 2)
