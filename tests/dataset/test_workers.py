"""Tests of parallel work: the same results in the same order, in threads and in processes."""

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from backbones.dataset.workers import as_they_finish, processes, quota, spread, usable_cores


def square(number: int) -> int:
    return number * number


def whereabouts(_: int) -> int:
    time.sleep(0.02)
    return threading.get_ident()


def test_results_come_in_the_order_of_the_items() -> None:
    assert spread(square, range(1000)) == [k * k for k in range(1000)]
    with ThreadPoolExecutor(3) as threads:
        assert spread(square, range(1000), threads) == [k * k for k in range(1000)]


def test_waiting_is_shared_among_threads() -> None:
    begin = time.perf_counter()
    threads = spread(whereabouts, range(100))
    assert len(set(threads)) > 8
    assert time.perf_counter() - begin < 0.02 * 100 / 2


def test_computing_stays_in_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both clocks are made equal, since a busy machine would change the measured times."""
    monkeypatch.setattr("time.thread_time", time.perf_counter)
    assert set(spread(whereabouts, range(20))) == {threading.get_ident()}


def test_jobs_are_made_when_they_are_needed() -> None:
    made: list[int] = []

    def jobs():
        for number in range(100):
            made.append(number)
            yield number

    with ThreadPoolExecutor(1) as threads:
        results = as_they_finish(square, jobs(), threads, ahead=4)
        first = next(results)
        assert len(made) <= 5
        assert sorted([first, *results]) == [k * k for k in range(100)]


@pytest.mark.parametrize(
    ("text", "cores"), [("max 100000", None), ("", None), ("250000 100000", 3), ("50000 100000", 1)]
)
def test_a_container_allows_the_cores_of_its_quota(text: str, cores: int | None) -> None:
    assert quota(text) == cores


@pytest.mark.parametrize(("text", "cores"), [(None, 4), ("max 100000", 4), ("150000 100000", 2), ("900000 100000", 4)])
def test_the_smaller_of_affinity_and_quota_counts(tmp_path: Path, monkeypatch, text: str | None, cores: int) -> None:
    if text:
        (tmp_path / "cpu.max").write_text(text)
    monkeypatch.setattr("backbones.dataset.workers.CPU_QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 3, 5, 6})
    assert usable_cores() == cores


def test_one_worker_needs_no_process() -> None:
    with processes(1) as executor:
        assert executor is None


def test_processes_are_other_processes_and_report_errors() -> None:
    with processes(2) as executor:
        assert executor is not None
        assert executor.submit(os.getpid).result() != os.getpid()
        with pytest.raises(ZeroDivisionError):
            spread(divmod_by_zero, [1], executor)


def divmod_by_zero(number: int) -> float:
    return number / 0
