"""Run an iterator ahead of its reader, in a thread of its own."""

import threading
from collections.abc import Generator, Iterator
from queue import Empty, Full, Queue
from typing import TypeVar

T = TypeVar("T")

POLL_SECONDS = 0.1
"""Time between two checks whether the reader has closed."""


def run_ahead(source: Iterator[T], depth: int) -> Generator[T, None, None]:
    """Yield the items of ``source``, up to ``depth`` of them made in advance; its errors are raised in their turn.

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
    """Put (item, None) for each item, then (None, the error or StopIteration that ended the source)."""
    while not closed.is_set():
        try:
            entry = (next(source), None)
        except BaseException as error:  # noqa: BLE001  # it is raised again in the reader's thread
            entry = (None, error)
        while not closed.is_set():
            try:
                queue.put(entry, timeout=POLL_SECONDS)
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
