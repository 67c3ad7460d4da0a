"""The stopwatch tells the truth about speed and waiting."""

import pytest

from backbones.training.stopwatch import Stopwatch


def test_waiting_for_data_and_images_per_second_are_measured(clock):
    measured = Stopwatch()

    def batches():
        for _ in range(3):
            clock.now += 1.0  # the loader works
            yield "batch"

    stream = batches()
    for _ in range(3):
        assert measured.wait_for(stream) == "batch"
        clock.now += 3.0  # the network works
        measured.images += 8
    assert measured.read() == {"perf/images_per_second": 2.0, "perf/data_wait": 0.25}


def test_a_restart_forgets(clock):
    measured = Stopwatch()
    measured.images += 8
    clock.now += 2.0
    measured.restart()
    clock.now += 1.0
    assert measured.read() == {"perf/images_per_second": 0.0, "perf/data_wait": 0.0}


def test_the_end_of_the_batches_is_passed_on():
    with pytest.raises(StopIteration):
        Stopwatch().wait_for(iter([]))
