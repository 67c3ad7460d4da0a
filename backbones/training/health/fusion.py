"""Dead or starved inputs of weighted shortcuts, from the first hundred steps on.

An input is dead when its raw weight gets no gradient any more: it cannot come back. With relu that is so below the
floor of the raw weights. It is starved when its share is next to nothing, but still has a gradient.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from backbones.training.health.monitor import Every, Finding, Row

MIN_SHARE = 0.01
"""Share below which an input is starved."""
MIN_SHARE_OF_EQUAL = 0.2
"""The same for a shortcut of many inputs, as part of an equal share."""
STARVED_STEPS = 300
"""Steps for which a share is that low before it is an alarm."""
STILL_STEPS = 100
"""Steps without a gradient after which an input is dead."""
RELEASE = 2.0
"""Ratio to the limit from which on an input is no longer starved."""


@dataclass(frozen=True)
class Shortcut:
    """One weighted shortcut, as far as the monitor needs to know it."""

    name: str
    """Name of the layer."""
    weight: nn.Parameter
    """Raw weights, (inputs, 1 or C)."""
    shares: Callable[[], Tensor]
    """Returns the effective weights, of the same shape."""
    widths: Sequence[int]
    """Channels of each input that the layer uses; weights beyond them have no effect."""
    floor: float | None = None
    """Raw weight up to which an input gets no gradient; None: there is no such weight."""


class _Input(NamedTuple):
    """One input of a shortcut at a look."""

    share: float
    """Effective weight of its strongest channel, without its sign."""
    raw: float
    """Largest raw weight."""
    gradient: float
    """Largest gradient, without its sign, of all steps since the last look."""


class FusionWeights:
    """Monitor of every input of every weighted shortcut.

    Args:
        shortcuts: the shortcuts; none is a network without anything to watch.
        optimizer: before each of its updates the gradients are looked at, on the device.
        interval: steps between two looks.
    """

    def __init__(self, shortcuts: Sequence[Shortcut], optimizer: Optimizer, interval: int) -> None:
        self.shortcuts = tuple(shortcuts)
        self.every = Every(interval)
        self.looked_at: int | None = 0
        """Step of the last look, or of the first row after a restart; None before that row."""
        self.gradients: Tensor | None = None
        """Largest gradient of each raw weight since the last look, one after the other, on the device."""
        self.still: dict[str, int] = {}
        """Input -> step since which it has no gradient."""
        self.starved: dict[str, int] = {}
        """Input -> step at which its low share was first seen."""
        if self.shortcuts:
            optimizer.register_step_pre_hook(self._watch_gradients)

    def restart(self) -> None:
        """Forget what was seen."""
        self.every.restart()
        self.looked_at = self.gradients = None
        self.still.clear()
        self.starved.clear()

    @torch.no_grad()
    def collect(self, step: int) -> Tensor | None:
        """Return share, raw weight and gradient of every input, where it is time to look."""
        is_due = self.every.is_due(step)
        if self.looked_at is None:
            self.looked_at = step
        if not is_due or self.gradients is None:
            return None
        gradients = self.gradients.split([shortcut.weight.numel() for shortcut in self.shortcuts])
        self.gradients = None
        return torch.cat([_measure(*pair) for pair in zip(self.shortcuts, gradients, strict=True)])

    def judge(self, row: Row, values: Sequence[float]) -> list[Finding] | None:
        """Return the inputs that are dead or starved."""
        if not values:
            return None
        inputs = zip(*[iter(values)] * len(_Input._fields), strict=True)
        findings = [
            self._judge_input(row.step, shortcut, number, _Input(*next(inputs)))
            for shortcut in self.shortcuts
            for number in range(len(shortcut.widths))
        ]
        self.looked_at = row.step
        return [finding for finding in findings if finding]

    def _judge_input(self, step: int, shortcut: Shortcut, number: int, seen: _Input) -> Finding | None:
        place = f"input {number} of {shortcut.name}"
        numbers = {"input": number, "share": seen.share, "raw": seen.raw}
        still = _note(self.still, place, self.looked_at or 0, begins=seen.gradient == 0, ends=seen.gradient != 0)
        is_off = shortcut.floor is not None and seen.raw <= shortcut.floor
        if is_off or (still is not None and shortcut.weight.requires_grad and step - still >= STILL_STEPS):
            why = f"its raw weight is {seen.raw:.3g}" if is_off else f"it got no gradient since step {still}"
            return Finding("fusion_dead", f"{place} is dead: {why}, its share {seen.share:.3g}", numbers, place)
        limit = min(MIN_SHARE, MIN_SHARE_OF_EQUAL / len(shortcut.widths))
        ends = seen.share >= RELEASE * limit
        since = _note(self.starved, place, step, begins=seen.share < limit, ends=ends)
        if since is None or step - since < STARVED_STEPS:
            return None
        text = f"{place} is starved: its share is {seen.share:.3g}, and has been that low since step {since}"
        return Finding("fusion_starved", text, numbers, place)

    @torch.no_grad()
    def _watch_gradients(self, *_: Any) -> None:
        """Keep the largest gradient of each raw weight. On a GPU this waits for nothing."""
        now = torch.cat([_gradient(shortcut.weight).flatten() for shortcut in self.shortcuts]).abs()
        self.gradients = now if self.gradients is None else torch.maximum(self.gradients, now)


def _gradient(weight: nn.Parameter) -> Tensor:
    return torch.zeros_like(weight) if weight.grad is None else weight.grad


def _measure(shortcut: Shortcut, gradients: Tensor) -> Tensor:
    """Return the values of `_Input` for each input, one after the other."""
    tables = (shortcut.shares().abs(), shortcut.weight, gradients.view_as(shortcut.weight))
    rows = zip(shortcut.widths, *tables, strict=True)
    return torch.stack([table[:width].amax() for width, *row in rows for table in row])


def _note(since: dict[str, int], place: str, step: int, *, begins: bool, ends: bool) -> int | None:
    """Return the step since which a state goes on; None where it does not."""
    if ends:
        since.pop(place, None)
    elif begins:
        since.setdefault(place, step)
    return since.get(place)
