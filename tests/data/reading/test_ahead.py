"""Tests of the thread that runs ahead: order, errors, how far, and its end."""

import threading
import time
from collections.abc import Iterator

import pytest

from backbones.data.reading.ahead import run_ahead


class Counter(Iterator[int]):
    def __init__(self, end: int = 10**9, error: Exception | None = None) -> None:
        self.made, self.end, self.error = 0, end, error

    def __next__(self) -> int:
        if self.made == self.end:
            raise self.error or StopIteration
        self.made += 1
        return self.made - 1


def wait_until(condition) -> None:
    for _ in range(200):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("waited two seconds")


def test_items_come_in_order_and_end_with_the_source() -> None:
    assert list(run_ahead(Counter(50), 3)) == list(range(50))


def test_an_error_comes_after_the_items_before_it() -> None:
    source = run_ahead(Counter(2, KeyError("here")), 5)
    assert [next(source), next(source)] == [0, 1]
    with pytest.raises(KeyError, match="here"):
        next(source)


def test_it_runs_ahead_as_far_as_it_was_told_and_no_farther() -> None:
    counter = Counter()
    source = run_ahead(counter, 4)
    next(source)
    wait_until(lambda: counter.made == 6)  # one taken, four waiting, one in hand
    time.sleep(0.05)
    assert counter.made == 6
    source.close()


def test_closing_ends_the_thread_even_when_its_queue_is_full() -> None:
    source = run_ahead(Counter(), 1)
    next(source)
    assert any(thread.name == "ahead" for thread in threading.enumerate())
    source.close()
    assert not any(thread.name == "ahead" for thread in threading.enumerate())
