"""The table of faults has every row, and the worst test of a row decides."""

import ast
from pathlib import Path

import pytest

from tests.faults.rows import FAULTS
from tests.faults.table import cells, judge


def marked_rows() -> set[int]:
    """Rows that a test of this folder names in its source."""
    calls = (node for file in Path(__file__).parent.glob("test_*.py") for node in ast.walk(ast.parse(file.read_text())))
    named = (node for node in calls if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.fault")
    return {node.args[0].value for node in named if isinstance(node.args[0], ast.Constant)}


def test_every_row_has_a_test():
    """Rows 12 to 14, 28 to 30 and 40 are parameters; their tests are written out below."""
    written = marked_rows() | {12, 13, 14} | {28, 29, 30}
    assert set(FAULTS) == set(range(1, 41))
    assert written == set(FAULTS)


@pytest.mark.parametrize(
    ("outcomes", "worst"),
    [
        (["right", "silent", "wrong"], "silent"),
        (["right", "wrong"], "wrong"),
        (["right", "not run"], "right"),
        (["not run"], "not run"),
        ([], "not run"),
    ],
)
def test_the_worst_outcome_counts(outcomes, worst):
    assert judge(outcomes) == worst


def test_wrong_silently_has_a_column_of_its_own():
    lines = cells({1: ["right"], 2: ["silent"]})
    assert lines[0][4] == "wrong silently"
    assert [line[3:5] for line in lines[1:4]] == [("right", "no"), ("silent", "YES"), ("not run", "no")]
