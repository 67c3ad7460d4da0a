"""Paired measurement: contenders take turns in each round, and a ratio is of costs in the same round.

A script for one question calls `measure`, puts the result into a `Result` and gives that to `publish`:

    costs = measure({"ours": step_of_ours, "timm": step_of_timm}, rounds=9, repeats=4)
    ratios = compare(costs, {"timm / ours": ("timm", "ours")})
    publish(Result("Training step", "CPU ms per image", costs, ratios, setting=vars(options)), options.json)

The order in a round is A B C ... C B A, so a drift of the machine's speed meets all contenders alike. The first round
is a warm-up and is dropped.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import torch

from benchmarks.machine import commit, date_of_today, describe_machine, describe_versions
from benchmarks.tables import to_markdown

Action = Callable[[], object]
Clock = Callable[[Action], float]
"""Function that runs an action and returns the seconds that it cost."""
Costs = dict[str, list[float]]
"""Contender -> its cost in each round."""


def tree_seconds() -> float:
    """Return the CPU seconds used so far by all threads of this process and of its children, dead or alive."""
    own = psutil.Process()
    ended = sum(own.cpu_times()[2:4])
    return time.process_time() + ended + sum(map(_seconds_of, own.children(recursive=True)))


def _seconds_of(process: psutil.Process) -> float:
    try:
        return sum(process.cpu_times()[:4])
    except psutil.NoSuchProcess:  # it ended since it was listed
        return 0.0


def cpu_seconds(action: Action) -> float:
    """Run ``action`` and return the CPU seconds of the whole process tree: other work on the machine counts less."""
    before = tree_seconds()
    action()
    return tree_seconds() - before


def wall_seconds(action: Action) -> float:
    """Run ``action`` and return the seconds that passed. Use it where waiting is what is measured."""
    before = time.perf_counter()
    action()
    return time.perf_counter() - before


def gpu_seconds(action: Action) -> float:
    """Run ``action`` and return the seconds between two events of the GPU, before and after its work."""
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    action()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1000


def clock_for(device: str | torch.device) -> Clock:
    """Return the clock of a device: events on a GPU, CPU time elsewhere."""
    return gpu_seconds if torch.device(device).type == "cuda" else cpu_seconds


def measure(
    contenders: Mapping[str, Action],
    *,
    rounds: int = 9,
    repeats: int = 1,
    scale: float = 1.0,
    clock: Clock = cpu_seconds,
    prepare: Callable[[str], object] = lambda _name: None,
) -> Costs:
    """Return the cost of one action of each contender in each round except the first.

    Args:
        contenders: name -> action; the order is that of a round's first half.
        rounds: rounds that count.
        repeats: actions of a turn. A round has two turns of each contender.
        scale: factor of the cost, such as ``1000 / images`` for milliseconds per image.
        clock: what a turn costs.
        prepare: called with the contender's name before each of its turns, outside of the measurement.
    """
    costs: Costs = {name: [] for name in contenders}
    for _ in range(rounds + 1):
        found: Costs = {name: [] for name in contenders}
        for name in [*contenders, *reversed(contenders)]:
            prepare(name)
            found[name].append(clock(_repeated(contenders[name], repeats)) * scale / repeats)
        for name, turns in found.items():
            costs[name].append(statistics.mean(turns))
    return {name: values[1:] for name, values in costs.items()}


def _repeated(action: Action, repeats: int) -> Action:
    def repeated() -> None:
        for _ in range(repeats):
            action()

    return repeated


def compare(costs: Costs, pairs: Mapping[str, tuple[str, str]]) -> Costs:
    """Return the ratios by round: ``pairs`` has the name of each with its dividend and its divisor."""
    return {
        name: [a / b for a, b in zip(costs[above], costs[below], strict=True)] for name, (above, below) in pairs.items()
    }


def summarize(values: Sequence[float]) -> dict[str, float]:
    """Return the median and the range of the rounds."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def summarize_ratio(values: Sequence[float]) -> dict[str, float]:
    """Return the median, the range, and in how many rounds the ratio was above 1: 7 of 9 on one side make a claim."""
    return summarize(values) | {"rounds": len(values), "rounds_above_1": sum(value > 1 for value in values)}


@dataclass
class Result:
    """Answer to one question, with all that is needed to repeat it."""

    title: str
    """Question, as a heading."""
    unit: str
    """Unit of the costs, such as "CPU ms per image"."""
    costs: Costs
    """Contender -> its cost in each round."""
    ratios: Costs = field(default_factory=dict)
    """Name of a ratio -> its value in each round."""
    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """Caption -> rows of figures that are not timed: bytes, launches, gradient errors."""
    notes: list[str] = field(default_factory=list)
    """Sentences about what was left out, or how to read a figure."""
    setting: dict[str, Any] = field(default_factory=dict)
    """Options of the script."""

    def to_json(self) -> dict[str, Any]:
        """Return the content of the result file."""
        return {
            "title": self.title,
            "unit": self.unit,
            "paired": {name: summarize_ratio(values) for name, values in self.ratios.items()},
            "rows": {name: summarize(values) for name, values in self.costs.items()},
            "tables": self.tables,
            "notes": self.notes,
            "setting": {name: value for name, value in self.setting.items() if name != "json"},
            "machine": describe_machine(),
            "versions": describe_versions(),
            "commit": commit(),
            "date": date_of_today(),
        }


def publish(result: Result, file: Path | None = None) -> dict[str, Any]:
    """Print the result as Markdown, write it as JSON where a file is named, and return what was written."""
    content = result.to_json()
    print(to_markdown(content))
    if file:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(content, indent=2, default=str) + "\n")
    return content


def create_parser(description: str, *, rounds: int = 9) -> argparse.ArgumentParser:
    """Return a parser with the options that all scripts share."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=_positive, default=rounds, help="rounds that count; one more is a warm-up")
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    return parser


def _positive(text: str) -> int:
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{value} is not positive")
    return value
