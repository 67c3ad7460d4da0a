"""Speed of the stages of a training run: each stage of the loader, the network alone, and all of them together."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import repeat
from typing import TypeVar, cast

import torch

from backbones.data.loader import TrainLoader
from backbones.recipe import Recipe, micro_batch
from backbones.training.loop import Run, train_step
from backbones.training.stopwatch import Stopwatch

T = TypeVar("T")

MEASUREMENT_SECONDS = 10.0
"""Length of one measurement."""

WARM_UP_SHARE = 0.3
"""Length of the warm-up, as a share of the measurement."""

MIN_STEPS = 2
"""Fewest steps of a measurement, and of a warm-up, however long they take."""

ENDLESS_STEPS = 2**40
"""More steps than a measurement can make."""

DROP_BLOCK_SHARE = 0.5
"""Share of the run for which DropBlock is set: it is then half as strong as at the end."""


@dataclass(frozen=True)
class Rate:
    """Result of one measurement."""

    images: int
    seconds: float
    busy: float = 0.0
    """CPU seconds of all threads of this process."""
    waited: float = 0.0
    """Seconds during which the network waited for data."""

    @property
    def per_second(self) -> float:
        """Images per second."""
        return self.images / self.seconds

    @property
    def per_core(self) -> float:
        """Images per CPU second."""
        return self.images / max(self.busy, 1e-9)

    @property
    def per_image(self) -> float:
        """Seconds per image."""
        return self.seconds / self.images

    @property
    def cores(self) -> float:
        """Mean number of busy cores."""
        return self.busy / self.seconds


@dataclass(frozen=True)
class Measurements:
    """The rates of one recipe on one machine."""

    stages: dict[str, Rate]
    """The loader up to and including each of its stages; the last is the whole loader."""
    model: Rate
    """Training steps on one batch that stays on the device."""
    joint: Rate
    """Training steps on the batches of the loader."""
    steps: int
    """Number of steps whose images were read, each after the previous one in the training order."""


class Stretch(Stopwatch):
    """Stopwatch that runs for some seconds, and for MIN_STEPS steps at least.

    It waits for the GPU before and after each batch arrives. Otherwise the time that a fast host waits for the GPU
    would count as waiting for data.
    """

    def __init__(self, seconds: float, device: torch.device) -> None:
        synchronize(device)
        super().__init__()
        self.seconds, self.device = seconds, device
        self.busy = time.process_time()
        self.steps = 0

    @property
    def is_over(self) -> bool:
        """True when the stretch was long enough."""
        return self.steps >= MIN_STEPS and time.perf_counter() - self.start >= self.seconds

    def wait_for(self, batches: Iterator[T]) -> T:
        """Return the next batch when it is on the device, and count the time until then."""
        synchronize(self.device)
        return super().wait_for(map(self._arrive, batches))

    def _arrive(self, batch: T) -> T:
        synchronize(self.device)
        return batch

    def rate(self) -> Rate:
        """Return the rate until now."""
        synchronize(self.device)
        elapsed = time.perf_counter() - self.start
        return Rate(self.images, elapsed, time.process_time() - self.busy, self.waited)


def measure(run: Run, recipe: Recipe, *, seconds: float, tell: Callable[[str], None]) -> Measurements:
    """Measure every stage of ``run`` for ``seconds`` each, after a warm-up.

    The weights do not change (the learning rate is 0), but the BatchNorm statistics do. Raises UserError for a bad
    image where that would stop the training.

    Args:
        run: made by `build_run`.
        recipe: of the run.
        seconds: length of each measurement.
        tell: called with the name of each measurement before it starts.
    """
    run, loader = _silence(run), cast(TrainLoader, run.train_batches)
    stages: dict[str, Rate] = {}
    for stage, from_step in loader.stages().items():
        tell(stage)
        with closing(from_step(run.step)) as sizes:
            stages[stage] = stage_rate(run, sizes, seconds=seconds)
    tell("copy (the whole loader)")
    with closing(loader.from_step(run.step)) as batches:
        stages["copy"] = stage_rate(run, (len(run.mix(batch)[0]) for batch in batches), seconds=seconds)
    tell("the network alone")
    batch = fixed_batch(recipe, len(loader.index.classes), run.accelerator.device)
    model = train_rate(replace(run, mix=lambda batch: batch), repeat(batch), seconds=seconds)
    tell("the loader and the network together")
    with closing(loader.from_step(run.step)) as batches:
        joint = train_rate(run, batches, seconds=seconds)
    return Measurements(stages, model, joint, run.step)


def stage_rate(run: Run, sizes: Iterator[int], *, seconds: float) -> Rate:
    """Return the rate of the micro-batches whose ``sizes`` arrive; ``run.step`` counts their steps."""

    def step(stretch: Stretch) -> None:
        stretch.images += sum(next(sizes) for _ in range(run.accelerator.gradient_accumulation_steps))
        run.step += 1

    return measure_rate(step, seconds=seconds, device=run.accelerator.device)


def train_rate(run: Run, batches: Iterator[object], *, seconds: float) -> Rate:
    """Return the rate of training steps on ``batches``, and the time of waiting for data."""

    def step(stretch: Stretch) -> None:
        run.report.stopwatch = stretch
        train_step(run, batches)

    return measure_rate(step, seconds=seconds, device=run.accelerator.device)


def measure_rate(step: Callable[[Stretch], None], *, seconds: float, device: torch.device) -> Rate:
    """Return the rate of ``step`` over ``seconds``, after a warm-up. ``step`` adds its images to the stretch."""
    for length in (WARM_UP_SHARE * seconds, seconds):
        stretch = Stretch(length, device)
        while not stretch.is_over:
            step(stretch)
            stretch.steps += 1
    return stretch.rate()  # pyright: ignore[reportPossiblyUnboundVariable]  # of the second one


def fixed_batch(recipe: Recipe, classes: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Return noise as one micro-batch, in the loader's memory order, and uniform targets.

    Shape: images (N, 3, H, W), targets (N, K).
    """
    count = micro_batch(recipe, processes=1)
    noise = torch.rand((count, 3, recipe.img_size, recipe.img_size), generator=torch.Generator().manual_seed(0))
    images = noise.to(device).contiguous(memory_format=torch.channels_last)
    return images, torch.full((count, classes), 1 / classes, device=device)


def synchronize(device: torch.device) -> None:
    """Wait until a GPU has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _silence(run: Run) -> Run:
    """Return the run without an end, without output and learning."""
    run.on_step(DROP_BLOCK_SHARE)
    run.model.train()
    return replace(
        run,
        schedule=lambda _step: 0.0,
        on_step=lambda _share: None,
        report=replace(run.report, interval=ENDLESS_STEPS, tracker=None),
        total_steps=ENDLESS_STEPS,
    )
