"""Cost of everything around the network in a training step: `train_step` against a bare loop, in one run.

python -m benchmarks.step_overhead [--device cuda] [--json FILE]

The bare loop is forward, backward, step and zero_grad of the same network on the same images; neither loads or mixes.
The difference is the trainer's own: learning rate, random numbers, guard against NaN, moving average, DropBlock's
strength, report. `linear` has one layer of 1000 classes. `deep` has 300 small modules, so that a walk over
modules shows. DropBlock's strength is set in the layers of csdarknet53_omega_mi_db.
"""

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from typing import Any

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor, nn

from backbones import create_model
from backbones.assembly.run import follow_progress, make_ema
from backbones.recipe import Optim, Recipe
from backbones.training.loop import NoCheckpoints, Run, train_step
from backbones.training.optim import create_optimizer
from backbones.training.report import Report
from benchmarks.harness import Costs, Result, clock_for, compare, create_parser, measure, publish

CLASSES, SIDE = 1000, 8
Step = Callable[[], None]


@dataclass
class OneBatch:
    """The same batch for ever."""

    batch: tuple[Tensor, Tensor]
    steps_per_epoch: int = 1_000_000
    n: int = 0

    def from_step(self, _step: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batch."""
        return repeat(self.batch)

    def __iter__(self) -> Iterator[Any]:
        return iter(())

    def counters(self) -> dict[str, int]:
        """Count nothing."""
        return {}

    def names(self, _step: int) -> list[str]:
        """Name nothing."""
        return []


def linear() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE * SIDE, CLASSES))


def deep() -> nn.Module:
    layers = [layer for _ in range(100) for layer in (nn.Linear(8, 8), nn.BatchNorm1d(8), nn.ReLU())]
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE * SIDE, 8), *layers, nn.Linear(8, CLASSES))


NETWORKS = {"linear": linear, "deep": deep}
CASES = {
    "linear": ("linear", False, False),
    "linear, EMA": ("linear", True, False),
    "linear, DropBlock": ("linear", False, True),
    "linear, EMA, DropBlock": ("linear", True, True),
    "deep": ("deep", False, False),
    "deep, EMA": ("deep", True, False),
}
"""Name of a row -> network, moving average, DropBlock."""


def trainer(network: nn.Module, batch: tuple[Tensor, Tensor], *, ema: bool, on_step: Callable[[float], None]) -> Step:
    """Return `train_step` of a run that has this network."""
    accelerator = Accelerator(cpu=not batch[0].is_cuda)
    recipe, batches = Recipe(model_ema=ema), OneBatch(batch)
    average = make_ema(recipe, network)
    prepared, optimizer = accelerator.prepare(network, create_optimizer(network, Optim(), lr=1e-3))
    total, rate = batches.steps_per_epoch, lambda _step: 1e-3
    run = Run(
        accelerator=accelerator,
        model=prepared,
        optimizer=optimizer,
        schedule=rate,
        recipe=recipe,
        total_steps=total,
        train_batches=batches,  # type: ignore[arg-type]
        val_batches=batches,
        mix=lambda found: found,
        checkpoints=NoCheckpoints(),
        report=Report(accelerator, rate, total, total, len(batch[0]), interval=50),
        on_step=on_step,
        ema=average,
    )
    run.model.train()
    return partial(train_step, run, batches.from_step(0))


def bare(network: nn.Module, batch: tuple[Tensor, Tensor]) -> Step:
    """Return the least that a step can be."""
    optimizer, (images, targets) = create_optimizer(network, Optim(), lr=1e-3), batch
    network.train()

    def step() -> None:
        F.cross_entropy(network(images), targets).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def contenders(case: tuple[str, bool, bool], options: argparse.Namespace) -> dict[str, Step]:
    """Return the two steps, each with a network of its own from the same weights."""
    name, ema, drop_block = case
    generator = torch.Generator().manual_seed(0)
    images = torch.rand((options.batch_size, 3, SIDE, SIDE), generator=generator).to(options.device)
    targets = torch.rand((options.batch_size, CLASSES), generator=generator).softmax(1).to(options.device)
    networks = []
    for _ in range(2):
        torch.manual_seed(0)
        networks.append(NETWORKS[name]().to(options.device))
    dropping = create_model("csdarknet53_omega_mi_db", num_classes=10).to(options.device) if drop_block else nn.Module()
    on_step = follow_progress(dropping)
    return {
        "trainer": trainer(networks[0], (images, targets), ema=ema, on_step=on_step),
        "bare": bare(networks[1], (images, targets)),
    }


def measure_case(title: str, options: argparse.Namespace) -> Costs:
    """Return the milliseconds of the two steps of a case and of their difference, by round."""
    clock = clock_for(options.device)
    steps = contenders(CASES[title], options)
    costs = measure(steps, rounds=options.rounds, repeats=options.turn, scale=1000, clock=clock)
    costs["difference"] = [ours - bare for ours, bare in zip(costs["trainer"], costs["bare"], strict=True)]
    return {f"{title}: {name}": values for name, values in costs.items()}


def main() -> None:
    parser = create_parser(__doc__ or "")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--turn", type=int, default=100, help="steps of each turn")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(1)
    costs: Costs = {}
    for title in CASES:
        costs |= measure_case(title, options)
    ratios = compare(costs, {f"{title}: trainer / bare": (f"{title}: trainer", f"{title}: bare") for title in CASES})
    publish(Result("Around the network", "ms per step", costs, ratios, setting=vars(options)), options.json)


if __name__ == "__main__":
    main()
