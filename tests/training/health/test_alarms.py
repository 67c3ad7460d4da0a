"""An alarm is said when it begins, and not at every row."""

from backbones.training.health.alarms import Alarms
from backbones.training.health.monitor import Finding


def said(alarms: Alarms, steps, *findings: Finding) -> list[int]:
    """The steps at which something is said."""
    return [step for step in steps if alarms.update(step, findings)]


HOT = Finding("hot", "it is hot", {"degrees": 40.0})


def test_what_goes_on_is_said_again_after_1000_2000_4000_more_steps():
    assert said(Alarms(), range(50, 20_000, 50), HOT) == [50, 1050, 3050, 7050, 15_050]


def test_what_has_ended_for_200_steps_is_said_when_it_begins_again():
    alarms = Alarms()
    assert said(alarms, [50], HOT) == [50]
    assert said(alarms, range(100, 300, 50)) == []
    assert said(alarms, [300], HOT) == [300]


def test_a_short_pause_is_no_end():
    alarms = Alarms()
    assert said(alarms, [50], HOT) == [50]
    assert said(alarms, [100, 150, 200]) == []
    assert said(alarms, [240], HOT) == []


def test_looks_that_are_far_apart_do_not_end_an_alarm():
    assert said(Alarms(), range(500, 3001, 500), HOT) == [500, 1500]


def test_each_place_has_its_own_alarm():
    alarms = Alarms()
    first, second = HOT._replace(place="a"), HOT._replace(place="b")
    assert said(alarms, [50], first) == [50]
    assert said(alarms, [100], first, second) == [100]
    assert said(alarms, [150], first, second) == []


def test_many_places_make_one_line_for_each_alarm():
    places = [Finding("hot", f"{place} is hot", {"degrees": 40.0}, place) for place in "abcde"]
    cold = Finding("cold", "f is cold", {}, "f", stops=True)
    first, second = Alarms().update(50, [*places, cold])
    assert first == cold
    assert second.text == "a is hot; b is hot; c is hot; and 2 more"
    assert second.numbers == {"degrees": 40.0, "count": 5}
    assert not second.stops


def test_a_line_ends_the_run_if_one_of_its_findings_does():
    (merged,) = Alarms().update(50, [HOT._replace(place="a"), HOT._replace(place="b", stops=True)])
    assert merged.stops


def test_after_a_restart_what_is_still_wrong_is_said_again():
    alarms = Alarms()
    assert said(alarms, [50], HOT) == [50]
    alarms.restart()
    assert said(alarms, [100], HOT) == [100]
