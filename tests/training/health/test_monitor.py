"""Monitors look at the first row after each multiple, and do not flutter about a limit."""

import pytest

from backbones.training.health.monitor import Every, Level


@pytest.mark.parametrize(
    ("rows", "due"),
    [
        (range(50, 401, 50), [100, 200, 300, 400]),
        (range(70, 421, 70), [140, 210, 350, 420]),
        ([44, 50, 88, 100, 132, 150], [100]),
        ([500, 1000], [500, 1000]),
    ],
)
def test_it_is_time_at_the_first_row_after_each_hundred(rows, due):
    every = Every(100)
    assert [step for step in rows if every.is_due(step)] == due


def test_after_a_restart_the_next_row_only_starts_the_count():
    every = Every(100)
    assert every.is_due(5000)
    every.restart()  # a rollback
    assert [step for step in (2150, 2190, 2210, 2290, 2300) if every.is_due(step)] == [2210, 2300]


def test_a_level_ends_lower_than_it_begins():
    level = Level(0.10, 0.05)
    assert [level.exceeds(value) for value in (0.09, 0.11, 0.09, 0.06, 0.04, 0.09)] == [
        False, True, True, True, False, False,
    ]  # fmt: skip
