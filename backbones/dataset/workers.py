"""Parallel work on many files: in threads where waiting for a drive dominates, in processes where computing does."""

import math
import multiprocessing
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from contextlib import contextmanager
from multiprocessing.connection import wait as wait_for
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

CONCURRENT_READS = 16
"""Requests at once to a slow drive."""

PROBE_SECONDS = 0.1
"""Time after which threads are chosen or not, by the speed of the first items."""

JOBS_PER_WORKER = 2
"""Jobs that exist at once for each process."""

CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")
"""File of cgroup v2: "QUOTA PERIOD", in microseconds, or "max PERIOD" for no limit."""


def usable_cores() -> int:
    """Return the cores that this process may use: its affinity, or the quota of its container if that is less."""
    cores = len(os.sched_getaffinity(0))
    allowed = quota(CPU_QUOTA.read_text()) if CPU_QUOTA.is_file() else None
    return min(cores, allowed or cores)


def quota(cpu_max: str) -> int | None:
    """Return the cores that the text of cpu.max allows; None: no limit."""
    match = re.match(r"(\d+) (\d+)", cpu_max)
    return max(1, math.ceil(int(match[1]) / int(match[2]))) if match else None


def spread(function: Callable[[T], R], items: Sequence[T], executor: Executor | None = None) -> list[R]:
    """Return ``function`` of every item, in order.

    Without an ``executor`` the speed of the first items decides: threads hide the response time of a network drive,
    but on a fast drive they only take turns, at twice the cost.
    """
    if executor is not None:
        return list(executor.map(function, items))
    results: list[R] = []
    wall, busy = time.perf_counter(), time.thread_time()
    while len(results) < len(items) and time.perf_counter() - wall < PROBE_SECONDS:
        results.append(function(items[len(results)]))
    wall, busy = time.perf_counter() - wall, time.thread_time() - busy
    rest = items[len(results) :]
    if wall < 2 * busy:
        return results + [function(item) for item in rest]
    with ThreadPoolExecutor(CONCURRENT_READS) as threads:
        return results + list(threads.map(function, rest))


def as_they_finish(function: Callable[[T], R], jobs: Iterable[T], executor: Executor | None, ahead: int) -> Iterator[R]:
    """Yield ``function`` of each job when it is done; at most ``ahead`` jobs exist at once."""
    if executor is None:
        yield from map(function, jobs)
        return
    waiting: set[Future[R]] = set()
    for job in jobs:
        waiting.add(executor.submit(function, job))
        if len(waiting) >= ahead:
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in done)
    while waiting:
        done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
        yield from (future.result() for future in done)


@contextmanager
def processes(count: int) -> Iterator[Executor | None]:
    """Open an executor of ``count`` new processes; None for one: then this process does the work itself.

    They are forked from a server that has imported this package once. They are not forked from this process, whose
    threads and GPU they must not inherit. They end when this process is killed.
    """
    if count == 1:
        yield None
        return
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    executor = ProcessPoolExecutor(count, mp_context=context, initializer=_begin)
    try:
        yield executor
    finally:
        executor.shutdown(cancel_futures=True)


def _begin() -> None:
    """Leave Ctrl-C to the parent, and end when it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait_for([parent.sentinel])
        os._exit(1)
