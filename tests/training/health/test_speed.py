"""Stalls and drops are judged over minutes; what a start or a single slow row costs is no alarm."""

from backbones.training.health.monitor import Finding, Row
from backbones.training.health.speed import DataStall, ThroughputDrop


def drive(monitor, rows: list[tuple[float, float]], *, first: int = 0, steps: int = 50) -> list[tuple[int, Finding]]:
    """Findings by step of rows of 50 steps of 10 images, given as (seconds, of which waited)."""
    found = []
    for number, (seconds, waited) in enumerate(rows, 1):
        step = first + number * steps
        row = Row(step, [1.0] * steps, {}, 10 * steps / seconds, seconds, waited)
        found += [(step, finding) for finding in monitor.judge(row, []) or []]
    return found


def test_a_sixth_of_five_minutes_in_waiting_is_a_stall():
    rows = [(30.0, 5.0)] * 12
    found = drive(DataStall(), rows)
    assert found[0][0] == 550  # the first row is not counted, and ten more make five minutes
    assert found[0][1].text == "17% of the last 5 minutes went into waiting for data"


def test_a_slow_start_or_one_slow_row_is_no_stall():
    assert drive(DataStall(), [(500.0, 400.0), *[(30.0, 1.0)] * 20, (30.0, 12.0), *[(30.0, 1.0)] * 20]) == []


def test_a_stall_ends_below_the_half_of_its_limit():
    monitor = DataStall()
    assert drive(monitor, [(30.0, 5.0)] * 20)
    assert drive(monitor, [(30.0, 2.5)] * 40)[-1][0] >= 1950
    assert drive(monitor, [(30.0, 1.0)] * 40)[-1][0] < 1000


def test_a_speed_that_falls_by_a_fifth_for_ten_minutes_is_a_drop():
    monitor = ThroughputDrop()
    assert drive(monitor, [(20.0, 0.0)] * 40) == []
    found = drive(monitor, [(25.0, 0.0)] * 24, first=2000)
    assert 2000 + 50 * 300 / 25 <= found[0][0] <= 2000 + 50 * 600 / 25
    assert found[-1][1].text == "20 images/s in the last 10 minutes, and 25 in the first steps"


def test_a_speed_that_falls_by_a_tenth_is_no_drop():
    monitor = ThroughputDrop()
    assert drive(monitor, [(20.0, 0.0)] * 40) == []
    assert drive(monitor, [(22.0, 0.0)] * 60, first=2000) == []


def test_a_compilation_in_the_first_row_does_not_lower_the_reference():
    monitor = ThroughputDrop()
    assert drive(monitor, [(300.0, 0.0), *[(20.0, 0.0)] * 40]) == []
    assert drive(monitor, [(25.0, 0.0)] * 24, first=2050)


def test_pauses_of_some_minutes_are_no_drop():
    """A save that waits for a disk: one row in four takes three times as long."""
    assert drive(ThroughputDrop(), [(60.0 if row % 8 == 0 else 20.0, 0.0) for row in range(200)]) == []


def test_a_short_run_has_no_reference():
    assert drive(ThroughputDrop(), [(60.0, 0.0)] * 18) == []


def test_rows_of_one_step_are_joined():
    """Most of them are fast at first, and later most are slow; a hundred steps always take 220 seconds."""
    rows = [(1.0, 0.0) if step % 5 < 3 else (4.0, 0.0) for step in range(1500)]
    rows += [(1.0, 0.0) if step % 5 < 2 else (3.0, 0.0) for step in range(1500)]
    assert drive(ThroughputDrop(), rows, steps=1) == []
    assert drive(DataStall(), [(1.0, 0.2)] * 500, steps=1)


def test_after_a_restart_the_reference_is_taken_anew():
    monitor = ThroughputDrop()
    drive(monitor, [(20.0, 0.0)] * 40)
    monitor.restart()  # on a slower machine
    assert drive(monitor, [(60.0, 0.0)] * 60) == []
