"""The bar tells the truth about speed, waiting and the time left."""

import time

import pytest

from backbones.training import progress
from backbones.training.progress import ProgressBar, Stopwatch


@pytest.fixture
def clock(monkeypatch):
    """A clock that only moves when told to."""

    class Clock:
        now = 100.0

        def __call__(self) -> float:
            return self.now

    clock = Clock()
    monkeypatch.setattr(progress.time, "perf_counter", clock)
    return clock


def test_waiting_for_data_and_images_per_second_are_measured(clock):
    stopwatch = Stopwatch()

    def batches():
        for _ in range(3):
            clock.now += 1.0  # the loader works
            yield "batch"

    for _ in stopwatch.waiting_for(batches()):
        clock.now += 3.0  # the network works
        stopwatch.images += 8
    assert stopwatch.read() == {"perf/images_per_second": 2.0, "perf/data_wait": 0.25}


def test_a_restart_forgets(clock):
    stopwatch = Stopwatch()
    stopwatch.images += 8
    clock.now += 2.0
    stopwatch.restart()
    clock.now += 1.0
    assert stopwatch.read() == {"perf/images_per_second": 0.0, "perf/data_wait": 0.0}


def test_the_clock_cannot_be_set_back():
    assert progress.time.perf_counter is time.perf_counter


def test_without_a_terminal_a_line_comes_now_and_then(clock, capsys):
    bar = ProgressBar(100, seconds=10.0)
    for step in range(1, 51):
        clock.now += 1.0
        bar.update(step, 2, {"perf/images_per_second": 123.4, "perf/data_wait": 0.056})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5
    assert " ".join(lines[-1].split()) == "epoch 3 step 50/100 123 images/s data wait 6% ETA 0:00:50"


def test_the_time_left_counts_only_the_steps_of_this_process(clock, capsys):
    bar = ProgressBar(100, seconds=0.0)
    bar.begin(80)
    clock.now += 5.0
    bar.update(90, 0, {"perf/images_per_second": 1.0, "perf/data_wait": 0.0})
    assert "ETA 0:00:05" in capsys.readouterr().out


def test_other_ranks_are_silent(clock, capsys):
    bar = ProgressBar(100, enabled=False, seconds=0.0)
    bar.update(1, 0, {"perf/images_per_second": 1.0, "perf/data_wait": 0.0})
    bar.print("hello")
    bar.close()
    assert capsys.readouterr().out == ""


def test_text_in_brackets_is_printed_as_it_is(capsys):
    ProgressBar(10).print("note        DIR/[/b]x[red].jpg")
    assert "DIR/[/b]x[red].jpg" in capsys.readouterr().out
