"""Output for people: one way to print a line, one progress display, one table."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

from rich import progress
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Column

LABEL_WIDTH = 11
"""Characters of the label at the start of a line."""

SECONDS_BETWEEN_LINES = 10.0
"""Time between two lines of progress where there is no terminal."""

SECONDS_BETWEEN_UPDATES = 0.5
"""Time between two updates of the bar."""

MIN_BAR_WIDTH = 10
"""Characters that the bar keeps, whatever else there is to show."""

TIME_WIDTH = 9
"""Characters of the time left, up to 999 hours."""


def say(label: str, text: object = "") -> None:
    """Print one line, "label       text", above the progress bar if there is one."""
    write(f"{label:<{LABEL_WIDTH}} {text}")


def write(text: str) -> None:
    """Print text as it is. Characters that the terminal cannot encode are escaped."""
    STDOUT.console.print(STDOUT.escape(text))


def table(rows: Sequence[Sequence[object]], align: str) -> str:
    """Return rows as aligned lines; the first one is the heading.

    Args:
        rows: the cells of each line, as many as ``align`` has letters.
        align: "l" or "r" for each column.
    """
    columns = zip(*([str(cell) for cell in row] for row in rows), strict=True)
    aligned = [_align(column, side) for column, side in zip(columns, align, strict=True)]
    return "\n".join("  ".join(row).rstrip() for row in zip(*aligned, strict=True))


def _align(column: Sequence[str], side: str) -> list[str]:
    width = max(map(len, column))
    return [cell.ljust(width) if side == "l" else cell.rjust(width) for cell in column]


class Task:
    """One thing that goes on: a bar on a terminal, elsewhere a line every ``SECONDS_BETWEEN_LINES``."""

    def __init__(self, display: "Display", bar: TaskID, what: str, unit: str) -> None:
        self.display, self.bar = display, bar
        self.what, self.unit = what, unit
        self.interval = SECONDS_BETWEEN_UPDATES if display.is_live else SECONDS_BETWEEN_LINES
        self.shown = time.perf_counter() - (self.interval if display.is_live else 0.0)

    @property
    def is_due(self) -> bool:
        """True when the next `update` will be shown. Check it before computing costly figures."""
        return time.perf_counter() - self.shown >= self.interval

    def update(self, done: int, figures: Sequence[str] = (), *, what: str | None = None, now: bool = False) -> None:
        """Show how far the task is.

        Args:
            done: of the total.
            figures: what else to show, the most important first; a narrow terminal shows the first ones only.
            what: another name for the task from now on.
            now: show it even if little time has passed.
        """
        self.what = what or self.what
        is_due = now or self.is_due
        self.display.bars.update(self.bar, completed=done)
        if not is_due:
            return
        self.shown = time.perf_counter()
        if self.display.is_live:
            text = " ".join(self._fitting(figures))
            self.display.bars.update(self.bar, description=self.what, figures=self.display.escape(text))
        else:
            self.display.console.print(self.display.escape("  ".join(self._line(figures))))

    def _line(self, figures: Sequence[str]) -> Iterator[str]:
        task = self._find_bar()
        yield self.what
        yield f"{task.completed:.0f}/{task.total:.0f} {self.unit}"
        yield from figures
        if task.time_remaining is not None:
            yield f"ETA {timedelta(seconds=round(task.time_remaining))}"

    def _find_bar(self) -> progress.Task:
        return self.display.bars.tasks[self.display.bars.task_ids.index(self.bar)]

    def _fitting(self, figures: Sequence[str]) -> Iterator[str]:
        """Yield the figures that leave room for the bar."""
        task = self._find_bar()
        counts = 2 * len(f"{task.total:.0f}") + 1
        left = self.display.console.width - len(self.what) - counts - TIME_WIDTH - MIN_BAR_WIDTH - 4
        for figure in figures:
            left -= len(figure) + 1
            if left < -1:
                return
            yield figure


class Display:
    """The progress bars of one stream. They come down when the last task ends."""

    def __init__(self, *, stderr: bool = False) -> None:
        self.console = Console(stderr=stderr, soft_wrap=True, highlight=False, markup=False, emoji=False)
        self.bars = self._create_bars()

    @property
    def is_live(self) -> bool:
        """True where bars can be drawn; a dumb terminal gets lines, as a file does."""
        return self.console.is_terminal and not self.console.is_dumb_terminal

    @contextmanager
    def task(self, what: str, total: int, *, unit: str, done: int = 0) -> Iterator[Task]:
        """Show a task during the block, with ``done`` of ``total`` behind it. Tasks may be nested."""
        if not self.bars.tasks:
            self.bars = self._create_bars()
            if self.is_live:
                self.bars.start()
        bar = self.bars.add_task(what, total=total, completed=done, figures="")
        try:
            yield Task(self, bar, what, unit)
        finally:
            self.bars.remove_task(bar)
            if self.bars.live.is_started and not self.bars.tasks:
                self.bars.stop()

    def escape(self, text: str) -> str:
        """Return text that the stream can encode."""
        encoding = self.console.encoding
        return text.encode(encoding, errors="backslashreplace").decode(encoding)

    def _create_bars(self) -> Progress:
        return Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None, table_column=Column(ratio=1)),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}", markup=False),
            TimeRemainingColumn(),
            console=self.console,
            expand=True,
            transient=True,
            get_time=time.perf_counter,
        )


STDOUT, STDERR = Display(), Display(stderr=True)
