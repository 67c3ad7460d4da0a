"""Errors of a check become rows."""

import torch

from backbones.assembly.preflight.row import Row, attempt, format_rows
from backbones.errors import UserError


def failing(error: Exception):
    yield Row("first", passed=True, found="fine")
    raise error


def test_an_error_is_a_row_that_failed_after_those_before():
    rows = list(attempt("disk", lambda: failing(UserError("no\nspace"))))
    assert rows == [Row("first", True, "fine"), Row("disk", False, "no space")]


def test_too_little_memory_is_a_row_with_a_remedy():
    rows = list(attempt("learning", lambda: failing(torch.OutOfMemoryError("CUDA"))))
    assert rows[1] == Row("learning", False, "out of memory: lower --batch-size, or raise --grad-accum-steps")


def test_rows_are_a_table():
    text = format_rows([Row("lr", True, "0.1"), Row("disk", False, "full")])
    assert text.splitlines() == ["      check  found", "PASS  lr     0.1", "FAIL  disk   full"]
