"""One line of the preflight: a check that passed or failed, and what it found."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch

from backbones.errors import UserError
from backbones.terminal import table


class Row(NamedTuple):
    """Result of one check."""

    check: str
    passed: bool
    found: str


def attempt(check: str, rows: Callable[[], Iterator[Row]]) -> Iterator[Row]:
    """Yield the rows of a check; an error that the user can correct, or a lack of memory, is a row that failed."""
    try:
        yield from rows()
    except torch.OutOfMemoryError:
        yield Row(check, passed=False, found="out of memory: lower --batch-size, or raise --grad-accum-steps")
    except UserError as error:
        yield Row(check, passed=False, found=" ".join(str(error).split()))


def format_rows(rows: list[Row]) -> str:
    """Return the table of all rows."""
    cells = [("PASS" if row.passed else "FAIL", row.check, row.found) for row in rows]
    return table([("", "check", "found"), *cells], "lll")
