"""Run an iterator ahead of its reader, in a thread of its own."""

import threading
from collections.abc import Generator, Iterator
from queue import Empty, Full, Queue
from typing import TypeVar

T = TypeVar("T")

PATIENCE = 0.1
"""Seconds between two looks whether the other side has gone."""


def run_ahead(source: Iterator[T], depth: int) -> Generator[T, None, None]:
    """Yield what ``source`` yields, up to ``depth`` items of it made in advance; its errors come in their turn.

    Closing the generator ends the thread.
    """
    queue: Queue[tuple[T | None, BaseException | None]] = Queue(depth)
    closed = threading.Event()
    thread = threading.Thread(target=_fill, args=(source, queue, closed), name="ahead", daemon=True)
    thread.start()
    try:
        while True:
            item, error = queue.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield item  # type: ignore[misc]
    finally:
        closed.set()
        _drain(queue)
        thread.join()


def _fill(source: Iterator[T], queue: Queue, closed: threading.Event) -> None:
    """Put (item, None) for each item, then (None, why it ended)."""
    while not closed.is_set():
        try:
            entry = (next(source), None)
        except BaseException as error:  # noqa: BLE001  # it is raised again on the other side
            entry = (None, error)
        while not closed.is_set():
            try:
                queue.put(entry, timeout=PATIENCE)
                break
            except Full:
                continue
        if entry[1] is not None:
            return


def _drain(queue: Queue) -> None:
    try:
        while True:
            queue.get_nowait()
    except Empty:
        return
