"""Time of subjects that take turns: A B B A in each round, so that a drift of the machine meets both alike."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

Action = Callable[[], object]
MIN_CALLS = 1
"""Fewest calls of a turn."""


class Spread(NamedTuple):
    """Median and range of a figure over the rounds."""

    median: float
    low: float
    high: float


class Turn(NamedTuple):
    """Seconds of one call in a turn."""

    elapsed: float
    busy: float
    """CPU time of all threads of this process."""


@dataclass(frozen=True)
class Rounds:
    """Turns of each subject in each round, the two of a round averaged."""

    turns: list[list[Turn]]
    """For each subject, one turn for each round."""

    def rate(self, subject: int, images: int) -> Spread:
        """Return the images per second of a subject that computes ``images`` in each call."""
        return spread([images / turn.elapsed for turn in self.turns[subject]])

    def ratio(self, images: Sequence[int], *, by_cpu_time: bool) -> Spread:
        """Return the speed of the first subject divided by that of the second, round by round.

        Args:
            images: images of a call of each subject.
            by_cpu_time: compare CPU time, which other processes of the machine disturb less than elapsed time.
        """
        first, second = ([turn.busy if by_cpu_time else turn.elapsed for turn in turns] for turns in self.turns)
        share = images[0] / images[1]
        return spread([share * b / a for a, b in zip(first, second, strict=True)])


def spread(values: Sequence[float]) -> Spread:
    """Return the median and range of some values."""
    return Spread(statistics.median(values), min(values), max(values))


def take_turns(actions: Sequence[Action], *, rounds: int, seconds: float, device: torch.device) -> Rounds:
    """Return the times of the actions in ``rounds`` rounds; one more comes before and is left out.

    Args:
        actions: one action, or two.
        rounds: number of rounds.
        seconds: shortest length of a turn.
        device: device that the actions run on.
    """
    calls = [_count_calls(action, seconds, device) for action in actions]
    order = [0, 1, 1, 0] if len(actions) == 2 else [0]
    turns: list[list[Turn]] = [[] for _ in actions]
    for _ in range(rounds + 1):
        found: list[list[Turn]] = [[] for _ in actions]
        for subject in order:
            found[subject].append(_take_turn(actions[subject], calls[subject], device))
        for kept, new in zip(turns, found, strict=True):
            kept.append(Turn(statistics.mean(t.elapsed for t in new), statistics.mean(t.busy for t in new)))
    return Rounds([kept[1:] for kept in turns])


def _count_calls(action: Action, seconds: float, device: torch.device) -> int:
    """Return the calls that take about ``seconds``, after a first call that may compile."""
    action()
    return max(MIN_CALLS, round(seconds / max(_take_turn(action, 1, device).elapsed, 1e-9)))


def _take_turn(action: Action, calls: int, device: torch.device) -> Turn:
    synchronize(device)
    start, busy = time.perf_counter(), time.process_time()
    for _ in range(calls):
        action()
    synchronize(device)
    return Turn((time.perf_counter() - start) / calls, (time.process_time() - busy) / calls)


def synchronize(device: torch.device) -> None:
    """Wait until a GPU has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
