"""Cost of the monitors: a run with them against the same run without, in turns, and each monitor by itself.

python -m benchmarks.health [--json FILE]

Both runs train the same network on the same random images. A turn is several steps and one log row, so rows are more
frequent here than in a real run. The cost of a step is CPU time; on a GPU, its own time. A ratio is the cost with
monitors / without in the same round.

Steps vary more than monitors cost. So each monitor is also measured alone, where it looks at each call: milliseconds
of a look, divided by the steps between two looks. Monitors that compare processes see two equal ones.

Waits are reads of device values by the host (item, tolist, bool ...). Collectives are counted over 5,000 steps of a run
of two processes with a row every 50.
"""

import argparse
import statistics
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from backbones.assembly.health import create_health
from backbones.recipe import Recipe, Synthetic
from backbones.training.health.fusion import FusionWeights
from backbones.training.health.heartbeat import write_beat
from backbones.training.health.monitor import Row
from backbones.training.loop import Run, train_step
from backbones.training.reading import read_device
from benchmarks.harness import Action, Clock, Result, clock_for, compare, create_parser, measure, publish
from benchmarks.trainer import build, synthetic_recipe, without_monitors

INTERVALS = {"FusionWeights": 100, "BatchNormStatistics": 500, "Stragglers": 500, "Replicas": 5000}
"""Steps between two looks; all others look at each row, or less often."""
ROW_STEPS = 50
"""Steps of a row, as in the default recipe."""
WAITS = ("item", "tolist", "__bool__", "__float__", "__int__", "cpu", "numpy")


class Contender:
    """A run that makes steps when it is told to."""

    def __init__(self, recipe: Recipe, folder: Path) -> None:
        self.run = build(recipe, folder)
        self.batches = self.run.train_batches.from_step(0)

    def step(self) -> None:
        """Make a step."""
        train_step(self.run, self.batches)

    def count_waits(self, steps: int) -> int:
        """Make steps and return how often the host read a value of the device."""
        with counting_waits() as count:
            for _ in range(steps):
                self.step()
        return len(count)


@contextmanager
def counting_waits() -> Iterator[list[str]]:
    count: list[str] = []

    def counted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            count.append(name)
            return function(*arguments, **options)

        return call

    originals = {name: getattr(torch.Tensor, name) for name in WAITS}
    for name, function in originals.items():
        setattr(torch.Tensor, name, counted(name, function))
    try:
        yield count
    finally:
        for name, function in originals.items():
            setattr(torch.Tensor, name, function)


def two_processes(run: Run) -> Any:
    """Return an accelerator that stands for two equal processes, and counts its collectives."""
    found: Any = SimpleNamespace(num_processes=2, process_index=0, device=run.accelerator.device, collectives=0)

    def gather(own: torch.Tensor) -> torch.Tensor:
        found.collectives += 1
        return torch.cat([own, own])

    found.gather, found.unwrap_model = gather, lambda model, **_: model
    return found


def look_costs(run: Run, folder: Path, rounds: int) -> dict[str, float]:
    """Return the milliseconds per step that each monitor costs by itself."""
    optimizer, device = run.optimizer.optimizer, run.accelerator.device
    health = create_health(run.recipe, two_processes(run), run.plain_model, optimizer, folder)
    losses, norms = [2.3] * ROW_STEPS, dict.fromkeys(range(ROW_STEPS), 1.0)
    clock = clock_for(device)
    costs: dict[str, float] = {}
    for monitor in health.monitors:
        name, times = type(monitor).__name__, []
        for number in range(1, rounds + 1):
            step = 5000 * number  # every monitor is due
            if isinstance(monitor, FusionWeights):
                monitor._watch_gradients()
            if watch := getattr(monitor, "watch", None):
                watch.looked = -1e9

            def look(monitor: Any = monitor, step: int = step) -> None:
                values = read_device([monitor.collect(step), torch.zeros(1, device=device)])[0]
                monitor.judge(Row(step, losses, norms, 100.0, 10.0, 0.1), values)

            times.append(1000 * clock(look))
        costs[name] = statistics.median(times) / INTERVALS.get(name, ROW_STEPS)
    fusion = next(monitor for monitor in health.monitors if isinstance(monitor, FusionWeights))
    costs["FusionWeights, gradients of each step"] = median_of(clock, rounds, fusion._watch_gradients)
    beat = median_of(clock, rounds, lambda: write_beat(folder / "heartbeat.json", 1, 2.0))
    costs["heartbeat, once in 30 s"] = beat / 100
    return costs


def median_of(clock: Clock, rounds: int, action: Action) -> float:
    """Return the milliseconds of an action."""
    return statistics.median(1000 * clock(action) for _ in range(rounds))


def count_collectives(run: Run, folder: Path) -> float:
    """Return the collectives of all monitors in 1,000 steps."""
    accelerator = two_processes(run)
    health = create_health(run.recipe, accelerator, run.plain_model, run.optimizer.optimizer, folder)
    for step in range(ROW_STEPS, 5001, ROW_STEPS):
        values = [read_device([part, torch.zeros(1)])[0] for part in health.collect(step)]
        list(health.judge(Row(step, [2.3] * ROW_STEPS), values))
    return accelerator.collectives / 5


def report(options: argparse.Namespace, folder: Path) -> Result:
    """Measure both runs, then each monitor alone."""
    recipe = recipe_of(options)
    watched = Contender(recipe, folder / "watched")
    plain = Contender(without_monitors(recipe), folder / "plain")
    clock = clock_for(watched.run.accelerator.device)
    steps = {"with monitors": watched.step, "without": plain.step}
    costs = measure(steps, rounds=options.rounds, repeats=options.turn, scale=1000, clock=clock)
    waits = {name: contender.count_waits(50) for name, contender in (("with", watched), ("without", plain))}
    looks = look_costs(watched.run, folder / "watched", options.looks)
    step = statistics.median(costs["without"])
    rows = {**looks, "all monitors": sum(looks.values())}
    alone = [{"monitor": name, "ms per step": cost, "% of a step": 100 * cost / step} for name, cost in rows.items()]
    notes = [
        f"Waits in 50 steps: {waits['with']} with monitors, {waits['without']} without.",
        f"Collectives in 1,000 steps of two processes: {count_collectives(watched.run, folder / 'watched'):g}.",
    ]
    ratios = compare(costs, {"with monitors / without": ("with monitors", "without")})
    tables = {"Each monitor by itself": alone}
    return Result("Monitors", "ms per step", costs, ratios, tables, notes, vars(options))


def recipe_of(options: argparse.Namespace) -> Recipe:
    """Return the recipe of the run with monitors."""
    classes = Synthetic(classes=10, train_per_class=1000, val_per_class=1)
    return synthetic_recipe(options, device=options.device, workers=1, synthetic=classes)


def main() -> None:
    options = parse()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        result = report(options, Path(folder))
    publish(result, options.json)


def parse() -> argparse.Namespace:
    parser = create_parser(__doc__ or "")
    parser.add_argument("--model", default="csresnext50_ws_mi2")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--size", type=int, default=64, help="height and width of the images")
    parser.add_argument("--turn", type=int, default=10, help="steps of each turn, and of a log row")
    parser.add_argument("--looks", type=int, default=20, help="looks of each monitor by itself")
    parser.add_argument("--device", choices=["auto", "cpu"], default="cpu")
    return parser.parse_args()


if __name__ == "__main__":
    main()
