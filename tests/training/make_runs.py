"""Runs of a four-layer network on made-up images, without a data set."""

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim import Optimizer

from backbones.recipe import Log, Optim, Recipe
from backbones.training.ema import MovingAverage
from backbones.training.evaluate import Evaluation
from backbones.training.guard import NotFiniteError
from backbones.training.loop import Run, train_epoch
from backbones.training.optim import create_optimizer
from backbones.training.report import Report
from backbones.training.schedule import poly_with_burn_in
from backbones.training.tracking import Tracker

STEPS_PER_EPOCH, BATCH, CLASSES = 4, 6, 3


class FakeBatch(NamedTuple):
    images: Tensor
    labels: Tensor


@dataclass
class FakeBatches:
    """The images of a step depend on its number alone; micro-batches are equal parts of them."""

    micro_batches: int = 1
    steps_per_epoch: int = STEPS_PER_EPOCH
    closed: int = 0

    def from_step(self, step: int) -> Iterator[FakeBatch]:
        try:
            while True:
                images, labels = made_up(1000 * (step // STEPS_PER_EPOCH) + step % STEPS_PER_EPOCH)
                for part in torch.arange(BATCH).chunk(self.micro_batches):
                    yield FakeBatch(images[part], labels[part])
                step += 1
        finally:
            self.closed += 1

    def counters(self) -> dict[str, int]:
        return {}

    def names(self, step: int) -> list[str]:
        return [f"step{step}/{number}.jpg" for number in range(BATCH)]


class FakeValidation(list):
    """An epoch that training never sees."""

    n = STEPS_PER_EPOCH * BATCH


def validation() -> FakeValidation:
    return FakeValidation(FakeBatch(*made_up(99_000 + step)) for step in range(STEPS_PER_EPOCH))


@dataclass
class FakeCheckpoints:
    """Notes what is written: (step, figures by name, whether they are the best), and what validation is owed."""

    best_top1: float = -math.inf
    folder: Path = Path("run")
    saved: list[tuple[int, dict[str, Evaluation], bool]] = field(default_factory=list)
    owed: list[bool] = field(default_factory=list)
    is_best: bool = False

    def write_last(self, run: Run, evaluations: dict[str, Evaluation], *, owes_validation: bool) -> None:
        self.saved.append((run.step, evaluations, self.is_best))
        self.owed.append(owes_validation)
        self.is_best = False

    def after_step(self, _run: Run) -> None:
        return

    def validating(self) -> AbstractContextManager[Callable[[], None]]:
        return nullcontext(lambda: None)

    def write_best(self, _run: Run, evaluations: dict[str, Evaluation]) -> None:
        self.best_top1 = list(evaluations.values())[-1].top1
        self.is_best = True

    def finish(self) -> None:
        return

    def roll_back(self, _run: Run, error: NotFiniteError) -> bool:
        raise error


def made_up(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, CLASSES, (BATCH,), generator=generator)
    return torch.randn(BATCH, 3, 6, 6, generator=generator) + labels[:, None, None, None], labels


def one_hot(batch: FakeBatch) -> tuple[Tensor, Tensor]:
    return batch.images, F.one_hot(batch.labels, CLASSES).float()


def network(*, norm: bool = True, dropout: float = 0.0) -> nn.Module:
    torch.manual_seed(0)
    middle = nn.BatchNorm2d(4) if norm else nn.Identity()
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), middle, nn.ReLU(), nn.Dropout(dropout), nn.Flatten(), nn.Linear(64, CLASSES)
    )


def make_run(
    model: nn.Module | None = None,
    *,
    micro_batches: int = 1,
    ema: bool = False,
    recipe: Recipe | None = None,
    tracker: Tracker | None = None,
    scaler: torch.amp.GradScaler | None = None,
    create: Callable[[nn.Module], Optimizer] = lambda model: create_optimizer(model, Optim(), lr=0.1),
    **fields,
) -> Run:
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=micro_batches)
    accelerator.scaler = scaler
    model = model or network()
    average = MovingAverage(model, decay=0.5) if ema else None
    prepared, optimizer = accelerator.prepare(model, create(model))
    total_steps = fields.get("total_steps", 8)
    schedule = fields.get("schedule", poly_with_burn_in(lr=0.05, total_steps=8, burn_in=2, power=1))
    recipe = recipe or Recipe(log=Log(interval=3))
    batches = FakeBatches(micro_batches)
    report = Report(accelerator, schedule, total_steps, STEPS_PER_EPOCH, BATCH, recipe.log.interval, tracker=tracker)
    defaults = {
        "schedule": schedule,
        "total_steps": total_steps,
        "recipe": recipe,
        "train_batches": batches,
        "val_batches": validation(),
        "mix": one_hot,
        "checkpoints": FakeCheckpoints(),
        "report": report,
    }
    return Run(accelerator=accelerator, model=prepared, optimizer=optimizer, ema=average, **(defaults | fields))


def saved(run: Run) -> list[tuple[int, dict[str, Evaluation], bool]]:
    return run.checkpoints.saved  # type: ignore[attr-defined]


def validated(run: Run) -> list[int]:
    """Steps at which figures were saved."""
    return [step for step, evaluations, _ in saved(run) if evaluations]


def train(run: Run) -> None:
    """Train the rest of the epoch."""
    with closing(run.train_batches.from_step(run.step)) as batches:
        train_epoch(run, batches)


def weights(run: Run) -> list[Tensor]:
    return [tensor.clone() for tensor in run.plain_model.state_dict().values()]


def same(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
