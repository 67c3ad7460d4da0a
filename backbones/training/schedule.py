"""The learning rate as a pure function of the step: nothing to save, nothing that can step twice."""

from collections.abc import Callable

from torch.optim import Optimizer

from backbones.recipe import Optim

Schedule = Callable[[int], float]
"""Step, from 1 -> learning rate."""


def create_schedule(optim: Optim, *, lr: float, total_steps: int, burn_in: int) -> Schedule:
    """Return the schedule of a recipe: ``lr`` at the end of ``burn_in`` steps, and ``total_steps`` in all."""
    return poly_with_burn_in(lr=lr, total_steps=total_steps, burn_in=burn_in, power=optim.power)


def poly_with_burn_in(*, lr: float, total_steps: int, burn_in: int, power: float) -> Schedule:
    """Return darknet's ``policy=poly`` with ``burn_in``: step -> learning rate.

    Steps count from 1, as darknet evaluates the rate after counting the batch: lr (step / burn_in)^power while
    step < burn_in, then lr (1 - step / total_steps)^power, which is 0 for the very last step.
    """

    def at(step: int) -> float:
        share = step / burn_in if step < burn_in else 1 - step / total_steps
        return lr * share**power

    return at


def set_lr(optimizer: Optimizer, lr: float) -> None:
    """Give every parameter group the learning rate ``lr``."""
    for group in optimizer.param_groups:
        group["lr"] = lr
