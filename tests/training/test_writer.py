"""The background writer does one job at a time and tolerates few failures."""

import threading

import pytest
import torch

from backbones.errors import UserError
from backbones.training.writer import Writer, copy_to_host, count_bytes


@pytest.fixture
def warnings() -> list[str]:
    return []


@pytest.fixture
def writer(warnings):
    writer = Writer(warnings.append)
    yield writer
    writer.close()


def fail() -> None:
    raise OSError("the disk is full\nand more")


def test_a_job_runs_beside_the_caller_and_the_next_one_waits_for_it(writer):
    started, done, order = threading.Event(), threading.Event(), []

    def first() -> None:
        started.set()
        assert done.wait(timeout=30)
        order.append("first")

    writer.start("first", first)
    assert started.wait(timeout=30)
    assert order == []
    done.set()
    writer.start("second", lambda: order.append("second"))
    writer.settle()
    assert order == ["first", "second"]


def test_a_failure_is_a_warning_and_a_success_forgives_it(writer, warnings):
    for job in (fail, fail, lambda: None, fail, fail):
        writer.start("saving", job)
        writer.settle()
    assert len(warnings) == 4
    assert warnings[0].startswith("saving failed: the disk is full; the checkpoints before are kept")
    assert writer.failures == 2


def test_three_failures_in_a_row_are_the_end(writer):
    for _ in range(2):
        writer.start("saving", fail)
        writer.settle()
    writer.start("saving", fail)
    with pytest.raises(UserError, match=r"saving failed: the disk is full. It was attempt 3 in a row"):
        writer.settle()


def test_finishing_tries_again(writer, warnings):
    outcomes = iter([fail, fail])

    def fail_twice() -> None:
        next(outcomes, lambda: None)()

    writer.start("saving", fail_twice)
    writer.finish()
    assert len(warnings) == 2
    assert writer.failures == 0


def test_a_failed_job_is_done_with_the_next_one_and_a_newer_one_of_its_name_replaces_it(writer):
    done: list[str] = []
    writer.start("best", fail)
    writer.start("best", lambda: done.append("newer best"))
    writer.start("last", lambda: done.append("last"))
    writer.start("best", fail)
    writer.settle()
    writer.start("last", lambda: done.append("newer last"))  # waits: the best before it fails again
    writer.settle()
    writer.start("best", lambda: done.append("newest best"))
    writer.settle()
    assert done == ["newer best", "last", "newest best", "newer last"]


def test_a_mistake_in_the_program_is_no_warning(writer, warnings):
    writer.start("saving", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        writer.settle()
    assert warnings == []


def test_polling_does_not_wait(writer, warnings):
    done = threading.Event()

    def fail_late() -> None:
        assert done.wait(timeout=30)
        fail()

    writer.start("saving", fail_late)
    writer.poll()
    assert warnings == []
    done.set()
    while not warnings:
        writer.poll()
    assert writer.failures == 1


def test_a_copy_keeps_values_types_and_memory_order_and_is_independent():
    image = torch.arange(24.0).view(1, 2, 3, 4).to(memory_format=torch.channels_last)
    value = {"a": [image, (torch.ones(2, dtype=torch.float16), 3)], "b": None}
    copy = copy_to_host(value)
    image += 1
    assert torch.equal(copy["a"][0], torch.arange(24.0).view(1, 2, 3, 4))
    assert copy["a"][0].is_contiguous(memory_format=torch.channels_last)
    assert copy["a"][1][0].dtype == torch.float16
    assert (copy["a"][1][1], copy["b"]) == (3, None)


def test_bytes_are_counted_at_any_depth():
    assert count_bytes({"a": [torch.zeros(3), (torch.zeros(2, dtype=torch.float64),)], "b": 7}) == 12 + 16
