"""Cost of the monitors: a run with them against the same run without, in turns, and each monitor by itself.

python benchmarks/health.py [--json FILE]

Both runs train the same network on the same random images. They take turns (A B B A) in each round; a turn is several
steps and one log row, so rows are more frequent here than in a real run. The cost of a step is CPU time of this
process; on a GPU, elapsed time until it has finished. The first round is a warm-up and is dropped. A ratio is the
cost with monitors / without in the same round.

Steps vary more than monitors cost. So each monitor is also measured alone, where it looks at each call: milliseconds
of a look, divided by the steps between two looks. Monitors that compare processes see two equal ones.

Waits are reads of device values by the host (item, tolist, bool ...). Collectives are counted over 5,000 steps of a run
of two processes with a row every 50.
"""

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import date
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from backbones.assembly.health import create_health
from backbones.assembly.run import build_model, build_run, splits, train_loader, val_loader
from backbones.recipe import Health, Log, Recipe, Synthetic
from backbones.training.health.fusion import FusionWeights
from backbones.training.health.heartbeat import write_beat
from backbones.training.health.monitor import Row
from backbones.training.launch import create_accelerator
from backbones.training.loop import NoCheckpoints, Run, train_step
from backbones.training.reading import read_device
from backbones.training.tracking import Tracker

PACKAGES = ("torch", "timm", "accelerate", "numpy")
INTERVALS = {"FusionWeights": 100, "BatchNormStatistics": 500, "Stragglers": 500, "Replicas": 5000}
"""Steps between two looks; all others look at each row, or less often."""
ROW_STEPS = 50
"""Steps of a row, as in the default recipe."""
WAITS = ("item", "tolist", "__bool__", "__float__", "__int__", "cpu", "numpy")


class Contender:
    """A run that makes steps when it is told to."""

    def __init__(self, recipe: Recipe, folder: Path) -> None:
        folder.mkdir()
        accelerator = create_accelerator(device=recipe.device)
        train, val = splits(recipe)
        loaders = train_loader(recipe, train, accelerator), val_loader(recipe, val, accelerator)
        model = build_model(recipe, len(train.classes))
        tracker = Tracker(folder, recipe)
        self.run: Run = build_run(recipe, accelerator, model, loaders, checkpoints=NoCheckpoints(), tracker=tracker)
        self.run.model.train()
        self.batches = self.run.train_batches.from_step(0)
        self.waits = 0

    def turn(self, steps: int) -> float:
        """Make steps and return the milliseconds of one."""
        before = seconds(self.run.accelerator.device)
        for _ in range(steps):
            train_step(self.run, self.batches)
        return 1000 * (seconds(self.run.accelerator.device) - before) / steps

    def count_waits(self, steps: int) -> int:
        """Make steps and return how often the host read a value of the device."""
        with counting_waits() as count:
            self.turn(steps)
        return len(count)


def seconds(device: torch.device) -> float:
    """Return the CPU time of this process; for a GPU, the time when it has finished all work."""
    if device.type == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


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


def in_turns(options: argparse.Namespace, watched: Contender, plain: Contender) -> dict[str, list[float]]:
    """Return milliseconds per step of both, the mean of two turns, in each round except the first."""
    found: dict[str, list[float]] = {"with monitors": [], "without": []}
    for _ in range(options.rounds + 1):
        first, second, third, fourth = (each.turn(options.turn) for each in (watched, plain, plain, watched))
        found["with monitors"].append((first + fourth) / 2)
        found["without"].append((second + third) / 2)
    return {name: values[1:] for name, values in found.items()}


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
    costs: dict[str, float] = {}
    for monitor in health.monitors:
        name, times = type(monitor).__name__, []
        for number in range(1, rounds + 1):
            step = 5000 * number  # every monitor is due
            if isinstance(monitor, FusionWeights):
                monitor._watch_gradients()
            if watch := getattr(monitor, "watch", None):
                watch.looked = -1e9
            before = seconds(device)
            values = read_device([monitor.collect(step), torch.zeros(1, device=device)])[0]
            monitor.judge(Row(step, losses, norms, 100.0, 10.0, 0.1), values)
            times.append(1000 * (seconds(device) - before))
        costs[name] = statistics.median(times) / INTERVALS.get(name, ROW_STEPS)
    fusion = next(monitor for monitor in health.monitors if isinstance(monitor, FusionWeights))
    costs["FusionWeights, gradients of each step"] = each(device, rounds, fusion._watch_gradients)
    costs["heartbeat, once in 30 s"] = each(device, rounds, lambda: write_beat(folder / "heartbeat.json", 1, 2.0)) / 100
    return costs


def each(device: torch.device, rounds: int, action: Callable[[], Any]) -> float:
    times = []
    for _ in range(rounds):
        before = seconds(device)
        action()
        times.append(1000 * (seconds(device) - before))
    return statistics.median(times)


def count_collectives(run: Run, folder: Path) -> float:
    """Return the collectives of all monitors in 1,000 steps."""
    accelerator = two_processes(run)
    health = create_health(run.recipe, accelerator, run.plain_model, run.optimizer.optimizer, folder)
    for step in range(ROW_STEPS, 5001, ROW_STEPS):
        values = [read_device([part, torch.zeros(1)])[0] for part in health.collect(step)]
        list(health.judge(Row(step, [2.3] * ROW_STEPS), values))
    return accelerator.collectives / 5


def spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def report(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Measure, print the tables and return the content of the ``--json`` file."""
    recipe = Recipe(
        model=options.model,
        img_size=options.size,
        batch_size=options.batch_size,
        lr=0.001,
        steps=100_000,
        loader="synthetic",
        device=options.device,
        workers=1,
        synthetic=Synthetic(classes=10, train_per_class=1000, val_per_class=1),
        log=Log(interval=options.turn),
    )
    watched = Contender(recipe, folder / "watched")
    plain = Contender(replace(recipe, health=Health(monitors=False)), folder / "plain")
    rows = in_turns(options, watched, plain)
    ratios = spread([a / b for a, b in zip(rows["with monitors"], rows["without"], strict=True)])
    waits = {name: contender.count_waits(50) for name, contender in (("with", watched), ("without", plain))}
    costs = look_costs(watched.run, folder / "watched", options.looks)
    step = statistics.median(rows["without"])
    share = sum(costs.values()) / step
    collectives = count_collectives(watched.run, folder / "watched")
    for name, values in rows.items():
        print(f"{name:44s} {statistics.median(values):10.2f} ms per step")
    print(f"{'ratio':44s} {ratios['median']:10.4f} ({ratios['min']:.4f} to {ratios['max']:.4f})")
    for name, cost in costs.items():
        print(f"{name:44s} {cost:10.4f} ms per step")
    print(f"{'all monitors':44s} {share:10.3%} of a step")
    print(f"waits in 50 steps: {waits['with']} with, {waits['without']} without")
    print(f"collectives in 1,000 steps of two processes: {collectives:g} of the monitors")
    return {
        "ratio": ratios,
        "share_of_a_step": share,
        "ms_per_step": {name: spread(values) for name, values in rows.items()},
        "ms_per_step_by_monitor": costs,
        "waits_in_50_steps": waits,
        "collectives_in_1000_steps": collectives,
        "setting": {name: value for name, value in vars(options).items() if name != "json"},
        "machine": {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()}
        | ({"gpu": torch.cuda.get_device_name()} if watched.run.accelerator.device.type == "cuda" else {}),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
        "date": date.today().isoformat(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="csresnext50_ws_mi2")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--size", type=int, default=64, help="height and width of the images")
    parser.add_argument("--turn", type=int, default=10, help="steps of each turn, and of a log row")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--looks", type=int, default=20, help="looks of each monitor by itself")
    parser.add_argument("--device", choices=["auto", "cpu"], default="cpu")
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        result = report(options, Path(folder))
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
