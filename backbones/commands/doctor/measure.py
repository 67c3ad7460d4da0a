"""How fast the stages of a training run are: each of the loader's, the network alone, and all of them together."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import repeat
from typing import Any, Generic, TypeVar, cast

import torch

from backbones.data.loader import TrainLoader
from backbones.recipe import Recipe, micro_batch
from backbones.training.loop import Run, TrainBatches, train_epoch
from backbones.training.progress import ProgressBar, Stopwatch

T = TypeVar("T")

SECONDS = 10.0
"""Length of one measurement."""

WARM_UP = 0.3
"""Length of the warm-up before it, as a share of it."""

LEAST = 2
"""Micro-batches or steps of a measurement, and of a warm-up, however long they take."""

ENDLESS = 2**40
"""Steps: more than a measurement can make."""

TYPICAL = 0.5
"""Share of the run that is done, at which DropBlock is half as strong as it becomes."""


@dataclass(frozen=True)
class Rate:
    """What was measured of one stage, or of several together."""

    images: int
    seconds: float
    busy: float = 0.0
    """CPU seconds of all threads of this process."""
    waited: float = 0.0
    """Seconds in which the network waited for data."""

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
        """Cores kept busy."""
        return self.busy / self.seconds


@dataclass(frozen=True)
class Measurements:
    """The rates of one recipe on one machine."""

    stages: dict[str, Rate]
    """The loader up to each of its stages, that one included; the last is the whole loader."""
    model: Rate
    """Training steps on one batch that lies on the device."""
    joint: Rate
    """The loader feeding the training steps."""
    steps: int
    """Steps whose images were read in all, each after the one before in the training order."""


class Stretch(Stopwatch):
    """Counts images from now until ``over``: for some seconds, and for LEAST micro-batches or steps."""

    def __init__(self, seconds: float, device: torch.device) -> None:
        synchronize(device)
        super().__init__()
        self.seconds, self.device = seconds, device
        self.busy = time.process_time()
        self.done = 0

    @property
    def over(self) -> bool:
        """Whether it was long enough."""
        return self.done >= LEAST and time.perf_counter() - self.start >= self.seconds

    def rate(self) -> Rate:
        """Return what was counted until now."""
        synchronize(self.device)
        elapsed = time.perf_counter() - self.start
        return Rate(self.images, elapsed, time.process_time() - self.busy, self.waited)


def measure(run: Run, recipe: Recipe, *, seconds: float, tell: Callable[[str], None]) -> Measurements:
    """Measure every stage of ``run`` for ``seconds`` each, after a warm-up; ``tell`` hears which.

    ``run`` is one that `build_run` has made of ``recipe``. Its weights stay as they are (the learning rate is 0), but
    not its BatchNorm statistics. Raises UserError for a bad image where that would stop the training.
    """
    run, loader, device = _quiet(run), cast(TrainLoader, run.train_batches), run.accelerator.device
    stages, step = _stage_rates(loader, seconds=seconds, tell=tell)
    tell("copy (the whole loader)")
    with loader:
        batches = Counted(_endless(run.train_batches, step))
        stages["copy"] = rate_of(_mixed(run, batches), seconds=seconds, device=device)
    step += -(-batches.count // recipe.grad_accum_steps)
    tell("the network alone")
    batch = fixed_batch(recipe, len(loader.index.classes), device)
    model = train_rate(replace(run, train_batches=Fixed(batch), mix=_as_it_is), seconds=seconds)
    tell("the loader and the network together")
    with loader:
        run.step = step
        joint = train_rate(run, seconds=seconds)
    return Measurements(stages, model, joint, run.step)


def rate_of(sizes: Iterator[int], *, seconds: float, device: torch.device) -> Rate:
    """Return how fast micro-batches come, after a warm-up; ``sizes`` never ends."""
    for span in (WARM_UP * seconds, seconds):
        stretch = Stretch(span, device)
        while not stretch.over:
            stretch.images += next(sizes)
            stretch.done += 1
    return stretch.rate()  # pyright: ignore[reportPossiblyUnboundVariable]  # of the second span


def train_rate(run: Run, *, seconds: float) -> Rate:
    """Return how fast ``run`` makes training steps, after a warm-up, and how long it waits for its batches."""
    run.train_batches = timed = Timed(run.train_batches, run.accelerator.gradient_accumulation_steps)
    for span in (WARM_UP * seconds, seconds):
        timed.stretch = Stretch(span, run.accelerator.device)
        while not timed.stretch.over:
            train_epoch(run)
    return timed.stretch.rate()


class Timed:
    """Micro-batches for `train_epoch` that end with the step in which ``stretch`` is over.

    A GPU is waited for before and after each batch arrives. Otherwise, where the host is ahead of it, waiting for the
    GPU would pass for waiting for data.
    """

    def __init__(self, source: TrainBatches, micro_batches: int) -> None:
        self.source, self.micro_batches = source, micro_batches
        self.steps_per_epoch = source.steps_per_epoch
        self.replaced = 0
        self.stretch = Stretch(0, torch.device("cpu"))

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[Any]:
        """Yield micro-batches until the epoch or the stretch is over."""
        stretch = self.stretch
        arriving = stretch.waiting_for(self._arrived(epoch, start_step))
        for number, batch in enumerate(arriving, start=1):
            count = len(batch[1])
            yield batch
            synchronize(stretch.device)
            stretch.images += count
            stretch.done += number % self.micro_batches == 0
            if number % self.micro_batches == 0 and stretch.over:
                return

    def _arrived(self, epoch: int, start_step: int) -> Iterator[Any]:
        for batch in self.source.epoch(epoch, start_step):
            synchronize(self.stretch.device)
            yield batch


class Fixed:
    """One micro-batch, again and again."""

    steps_per_epoch = ENDLESS
    replaced = 0

    def __init__(self, batch: Any) -> None:
        self.batch = batch

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[Any]:  # noqa: ARG002  # they are all the same
        """Yield the micro-batch without end."""
        return repeat(self.batch)


class Counted(Generic[T]):
    """An iterator that knows how many of its items were taken."""

    def __init__(self, items: Iterator[T]) -> None:
        self.items = items
        self.count = 0

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        item = next(self.items)
        self.count += 1
        return item


def fixed_batch(recipe: Recipe, classes: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Return noise as one micro-batch, in the memory order that the loader has, and even targets.

    Shape: images (N, 3, H, W), targets (N, K).
    """
    count = micro_batch(recipe, processes=1)
    noise = torch.rand((count, 3, recipe.img_size, recipe.img_size), generator=torch.Generator().manual_seed(0))
    images = noise.to(device).contiguous(memory_format=torch.channels_last)
    return images, torch.full((count, classes), 1 / classes, device=device)


def synchronize(device: torch.device) -> None:
    """Wait until a GPU has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _quiet(run: Run) -> Run:
    """Return the run with an end that is far away, without reports and without learning."""
    run.on_step(TYPICAL)
    return replace(
        run,
        schedule=lambda _step: 0.0,
        on_step=lambda _share: None,
        progress=ProgressBar(ENDLESS, enabled=False),
        total_steps=ENDLESS,
        log_interval=ENDLESS,
    )


def _stage_rates(loader: TrainLoader, *, seconds: float, tell: Callable[[str], None]) -> tuple[dict[str, Rate], int]:
    """Return the rates of the loader's stages, and the first step whose images were not read for them."""
    rates, step = {}, 0
    for stage, from_step in loader.stages().items():
        tell(stage)
        with closing(from_step(step)) as stream:
            sizes = Counted(stream)
            rates[stage] = rate_of(sizes, seconds=seconds, device=torch.device(loader.device))
        step += -(-sizes.count // loader.grad_accum_steps)
    return rates, step


def _endless(batches: TrainBatches, step: int) -> Iterator[Any]:
    """Yield the micro-batches of a run from ``step`` on."""
    epoch, start = divmod(step, batches.steps_per_epoch)
    while True:
        yield from batches.epoch(epoch, start)
        epoch, start = epoch + 1, 0


def _mixed(run: Run, batches: Iterator[Any]) -> Iterator[int]:
    for batch in batches:
        images, _ = run.mix(batch)
        yield len(images)


def _as_it_is(batch: Any) -> Any:
    return batch
