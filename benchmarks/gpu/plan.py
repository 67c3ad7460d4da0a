"""Plan of a proof: its device and sizes, its parts, and what became of each."""

import gc
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import torch

from benchmarks.harness import Action, Clock, Costs, clock_for, measure, summarize
from benchmarks.machine import commit, date_of_today
from benchmarks.networks import Setting

Status = Literal["done", "failed", "left out"]
Row = dict[str, str]

MIN_SECONDS = 5
"""Least time that is worth starting a part."""


@dataclass(frozen=True)
class Plan:
    """Device and sizes of all parts."""

    device: str = "cuda"
    quick: bool = False
    """Use tiny sizes, to try the parts themselves: the figures mean nothing."""
    batch: int = 256
    size: int = 256

    def setting(self, *, size: int | None = None, batch: int | None = None) -> Setting:
        """Return batch and number format of a network's measurement."""
        return Setting(batch or self.batch, size or self.size, self.device, torch.bfloat16)

    @property
    def clock(self) -> Clock:
        """Clock of the device."""
        return clock_for(self.device)

    def measure(self, contenders: Mapping[str, Action], *, repeats: int, scale: float = 1.0) -> Costs:
        """Return the seconds of each action, in turns: two rounds after the warm-up."""
        rounds, repeats = (1, 1) if self.quick else (2, repeats)
        return measure(contenders, rounds=rounds, repeats=repeats, scale=scale, clock=self.clock)


class Left(Exception):  # noqa: N818  (no error: the part cannot run here)
    """Reason for which a part is left out."""


@dataclass(frozen=True)
class Part:
    """Part of the proof."""

    name: str
    run: Callable[[Plan], Iterable[Row]]
    """Yields rows as they are found, so that a failure keeps those before it; raises Left where it cannot run."""
    seconds: int
    """Time after which it is ended."""
    needs_gpu: bool = False


@dataclass
class Outcome:
    """Result of a part."""

    status: Status
    seconds: float = 0.0
    reason: str = ""
    rows: list[Row] = field(default_factory=list)
    commit: str = field(default_factory=commit)
    date: str = field(default_factory=date_of_today)

    def to_json(self) -> dict[str, Any]:
        """Return plain dictionaries."""
        return asdict(self)


def row(what: str, value: float | str, unit: str = "", *, spread: Sequence[float] = (), goal: str = "") -> Row:
    """Return a row of a part's table; ``spread`` gives its range."""
    limits = f"{min(spread):.4g} to {max(spread):.4g}" if spread else ""
    return {"what": what, "value": value if isinstance(value, str) else f"{value:.4g}", "unit": unit} | (
        {"least to most": limits, "goal": goal}
    )


def rate_rows(costs: Costs) -> Iterator[Row]:
    """Yield images per second, from seconds per image."""
    for name, values in costs.items():
        rates = [1 / value for value in values]
        yield row(name, summarize(rates)["median"], "images/s", spread=rates)


def ratio_rows(ratios: Costs, goals: Mapping[str, str] | None = None) -> Iterator[Row]:
    """Yield ratios of the same round with their goals."""
    for name, values in ratios.items():
        yield row(name, summarize(values)["median"], "ratio", spread=values, goal=(goals or {}).get(name, ""))


def run_part(part: Part, plan: Plan, *, seconds_left: float = 1e9) -> Outcome:
    """Run a part, and return what it found, also where it fails or the time of all parts is over."""
    outcome, start = Outcome("done"), time.perf_counter()
    try:
        if part.needs_gpu and plan.device == "cpu":
            raise Left("it needs a GPU")
        if seconds_left < MIN_SECONDS:
            raise Left("the time of all parts was over")
        with limited(int(min(part.seconds, seconds_left))):
            for found in part.run(plan):
                outcome.rows.append(found)
    except Left as reason:
        outcome.status, outcome.reason = "left out", str(reason)
    except ModuleNotFoundError as error:
        outcome.status, outcome.reason = "left out", f"the package {error.name} is not installed"
    except Exception as error:  # noqa: BLE001  (a part that fails must not hide the others)
        outcome.status, outcome.reason = "failed", f"{type(error).__name__}: {error}"[:500]
    outcome.seconds = round(time.perf_counter() - start, 1)
    free_memory()
    return outcome


@contextmanager
def limited(seconds: int) -> Iterator[None]:
    """Raise TimeoutError in the block after this time."""

    def end(_number: int, _frame: object) -> None:
        raise TimeoutError(f"the part took more than its {seconds} s")

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def free_memory() -> None:
    """Give memory of the part before back to the device."""
    gc.collect()
    torch.compiler.reset()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
