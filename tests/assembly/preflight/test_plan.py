"""Learning rates, hours and costs of the plan."""

import pytest

from backbones.assembly.preflight.plan import check_schedule, estimate_hours
from backbones.recipe import Optim, Recipe


def test_the_rates_are_those_of_darknets_schedule():
    """1,000 steps, burn-in 100, power 4, lr 0.1: at 1 % (10/100)^4 of it, at 50 % (1 - 0.5)^4."""
    (row,) = check_schedule(Recipe(steps=1000, optim=Optim(burn_in=100)), 10)
    assert row.passed
    assert row.found == "1e-09 at 0%, 1e-05 at 1%, 0.0656 at 10%, 0.00625 at 50%, 0 at 100% of 1000 steps"


def test_hours_and_cost_follow_from_the_slower_part():
    """100 epochs of 36 steps of 100 images at 100 images/s: 3,600 s = 1 hour."""
    recipe = Recipe(epochs=100, batch_size=100)
    rows = list(estimate_hours(recipe, 36, {"model": 100.0, "loader": 250.0}, devices=1, price=3.0))
    assert [row.check for row in rows] == ["1 device", "4 devices", "8 devices"]
    assert rows[0].found == "1.0 hours, cost 3.00 (100 images/s, limited by the model; measured)"
    assert rows[1].found == "0.2 hours, cost 3.00 (400 images/s, limited by the model; if each is as fast as here)"


def test_without_a_price_there_is_no_cost_and_without_a_speed_no_row():
    rows = list(estimate_hours(Recipe(epochs=1), 36, {"model": 100.0}, devices=4, price=None))
    assert "cost" not in rows[0].found
    assert rows[1].found.endswith("measured)")
    assert list(estimate_hours(Recipe(), 36, {}, devices=1, price=1.0)) == []


@pytest.mark.parametrize("rate", [-1.0, float("nan"), 9.0])
def test_a_rate_that_cannot_be_is_a_failure(monkeypatch, rate):
    monkeypatch.setattr("backbones.assembly.preflight.plan.create_schedule", lambda *_, **__: lambda _step: rate)
    (row,) = check_schedule(Recipe(steps=1000), 10)
    assert not row.passed
