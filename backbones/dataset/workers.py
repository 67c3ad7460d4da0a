"""Work on many files at once: in threads where waiting for a drive dominates, in processes where computing does."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from contextlib import contextmanager
from multiprocessing.connection import wait as wait_for
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

THREADS = 16
"""Requests that are under way at once on a slow drive."""

PROBE_SECONDS = 0.1
"""How long the first items are watched before threads are chosen or not."""

AHEAD = 2
"""Jobs of a process that wait for it."""


def spread(function: Callable[[T], R], items: Sequence[T], executor: Executor | None = None) -> list[R]:
    """Return ``function`` of every item, in order.

    Without an ``executor`` the first items tell where: threads hide the answer time of a network drive, but on a
    fast one they only take turns, at twice the cost.
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
    with ThreadPoolExecutor(THREADS) as threads:
        return results + list(threads.map(function, rest))


def as_they_finish(function: Callable[[T], R], jobs: Iterable[T], executor: Executor | None, ahead: int) -> Iterator[R]:
    """Yield ``function`` of each job as it is done; at most ``ahead`` jobs are made before they are needed."""
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
    """Give an executor of ``count`` fresh processes, or None for one: then everything happens here.

    They are forked from a server that has imported this package once, never from this process, whose threads and
    GPU they must not inherit. When this process is killed they end too.
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
    """Leave Ctrl-C to the parent, and do not outlive it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait_for([parent.sentinel])
        os._exit(1)
