"""The learning rate along the run, and its hours and cost."""

import math
from collections.abc import Iterator, Mapping

from backbones.assembly.preflight.row import Row
from backbones.recipe import Recipe, burn_in_steps, run_length
from backbones.training.schedule import create_schedule

SHARES = (0.0, 0.01, 0.1, 0.5, 1.0)
"""Shares of the run at which the learning rate is shown."""

DEVICES = (1, 4, 8)
"""Numbers of devices for which hours are computed."""


def check_schedule(recipe: Recipe, steps_per_epoch: int) -> Iterator[Row]:
    """Show the learning rate at some places of the run; it must be finite and never negative or above ``lr``."""
    total = run_length(recipe, steps_per_epoch)
    schedule = create_schedule(recipe.optim, lr=recipe.lr, total_steps=total, burn_in=burn_in_steps(recipe, total))
    rates = {share: schedule(max(1, round(share * total))) for share in SHARES}
    passed = all(math.isfinite(rate) and 0 <= rate <= recipe.lr for rate in rates.values())
    shown = ", ".join(f"{rate:.3g} at {share:.0%}" for share, rate in rates.items())
    yield Row("lr", passed, f"{shown} of {total} steps")


def estimate_hours(
    recipe: Recipe, steps_per_epoch: int, speeds: Mapping[str, float], *, devices: int, price: float | None
) -> Iterator[Row]:
    """Yield hours and cost of the run on 1, 4 and 8 devices.

    Args:
        recipe: the recipe.
        steps_per_epoch: of the training.
        speeds: images per second of each part of one process; the slowest one counts.
        devices: number of processes that were measured.
        price: of one device for an hour; None shows no cost.
    """
    if not speeds:
        return
    part, speed = min(speeds.items(), key=lambda item: item[1])
    images = run_length(recipe, steps_per_epoch) * recipe.batch_size
    for number in DEVICES:
        hours = images / (speed * number) / 3600
        cost = f", cost {price * number * hours:.2f}" if price is not None else ""
        how = "measured" if number == devices else "if each is as fast as here"
        text = f"{hours:.1f} hours{cost} ({speed * number:.0f} images/s, limited by the {part}; {how})"
        yield Row(f"{number} device{'s' if number > 1 else ''}", passed=True, found=text)
