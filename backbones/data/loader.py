"""Batches for training and evaluation: float images on the device, labels, and their position in the epoch."""

import importlib
from collections.abc import Callable, Generator, Iterator
from dataclasses import KW_ONLY, dataclass, field, replace
from functools import partial
from itertools import islice
from types import ModuleType

import torch

from backbones.data.augment.finish import Finish
from backbones.data.augment.view import View
from backbones.data.batch import Batch, to_device
from backbones.data.feed import Feed, OpenImages, OpenStage
from backbones.data.order import Plan, Shares, training_plans, validation_plans
from backbones.data.reading.bad_images import BadImages
from backbones.dataset.index import Index
from backbones.errors import UserError, did_you_mean
from backbones.recipe import Augment, LoaderName, Loading, Preprocess

LOADERS = {
    "dali": "backbones.data.pipeline",
    "reference": "backbones.data.reference",
    "synthetic": "backbones.data.synthetic",
}
"""Module of each loader. It is imported on demand, so that only "dali" needs DALI."""


@dataclass(eq=False)
class TrainLoader:
    """Micro-batches of one process in an endless training run.

    The images, crops and flips of a step depend on (index, seed, step) alone, not on the number of processes,
    accumulation steps or threads, nor on the step at which the run was resumed. Raises UserError where the batch size
    does not fit.
    """

    index: Index
    _: KW_ONLY
    img_size: int
    """Height and width of the images in pixels."""
    preprocess: Preprocess
    augment: Augment
    batch_size: int
    """Images per optimizer step, over all processes and accumulation steps."""
    grad_accum_steps: int = 1
    rank: int = 0
    """Number of this process among all processes of all machines (not the local one)."""
    world_size: int = 1
    device: torch.device | str = "cpu"
    seed: int = 0
    loader: LoaderName = "dali"
    workers: int = 4
    """Decoding threads of this process."""
    loading: Loading = field(default_factory=Loading)
    """Reading threads, batches ahead, and the rule for bad images."""

    def __post_init__(self) -> None:
        self._shares = Shares(self.batch_size, self.grad_accum_steps, self.rank, self.world_size)
        self.steps_per_epoch = self._shares.steps_per_epoch(len(self.index))
        self.dropped = len(self.index) % self.batch_size
        self._module = import_loader(self.loader)
        bad = BadImages(self.index, self.loading, world_size=self.world_size)
        view, device = View(self.img_size, self.preprocess, self.augment), torch.device(self.device)
        self._feed = Feed(self.index, view, self._shares.micro_batch, device, self.workers, self.loading, bad)

    def from_step(self, step: int) -> Generator[Batch, None, None]:
        """Return the micro-batches from optimizer step ``step`` of the run on, grad_accum_steps per step, without end.

        Threads read ahead, over the ends of epochs too. Closing the generator ends them. Every call starts a stream of
        its own. Raises ValueError for a negative step.
        """
        return make_batches(self._module.images, self._plans(step), self._feed)

    def counters(self) -> dict[str, int]:
        """Return what was counted while batches were taken, in this process: replaced bad images."""
        return {"data/replaced": self._feed.bad.replaced}

    def names(self, step: int) -> list[str]:
        """Return the images of this process in optimizer step ``step`` of the run, as files for people."""
        plans = islice(self._plans(step), self.grad_accum_steps)
        return [self.index.describe(row) for plan in plans for row in plan.rows.tolist()]

    def check_decoding(self, images: int) -> int:
        """Compare the first ``images`` of the first epoch with what PIL decodes, in whole micro-batches.

        Returns their number; 0 where the loader decodes with PIL itself, or nothing. Raises UserError that names those
        that differ.
        """
        if self.loader != "dali":
            return 0
        epoch = self.steps_per_epoch * self.grad_accum_steps
        plans = islice(self._plans(0), min(epoch, -(-images // self._shares.micro_batch)))
        feed = replace(self._feed, loading=replace(self.loading, decode_check=1))
        with self._module.images(plans, feed) as pixels:
            return sum(len(plan.rows) for plan, _ in pixels)

    def stages(self) -> dict[str, Callable[[int], Generator[int, None, None]]]:
        """Return functions that do the loader's work up to each of its stages, from a step on, to be measured.

        Each yields the number of images of a micro-batch when it is done with them, without end.
        """
        return {name: partial(self._work, stage) for name, stage in self._module.STAGES.items()}

    def _work(self, stage: OpenStage, step: int) -> Generator[int, None, None]:
        with stage(self._plans(step), self._feed) as finished:
            for plan, _ in finished:
                yield len(plan.rows)

    def _plans(self, step: int) -> Iterator[Plan]:
        if step < 0:
            raise ValueError(f"step={step} must not be negative")
        return training_plans(len(self.index), self._shares, seed=self.seed, step=step)


@dataclass(eq=False)
class EvalLoader:
    """This process's share of the validation images, in batches; iterable any number of times.

    Over all processes every image comes exactly once: nothing is padded, repeated or dropped. So a process may have
    a smaller last batch, fewer batches than another, or none.
    """

    index: Index
    _: KW_ONLY
    img_size: int
    """Height and width of the images in pixels."""
    preprocess: Preprocess
    batch_size: int
    """Images per batch of this process."""
    rank: int = 0
    world_size: int = 1
    device: torch.device | str = "cpu"
    loader: LoaderName = "dali"
    workers: int = 4
    """Decoding threads of this process."""
    loading: Loading = field(default_factory=Loading)
    """Reading threads, and batches ahead. A bad image always stops the evaluation."""

    def __post_init__(self) -> None:
        self.n = len(self.index)
        self._module = import_loader(self.loader)

    def __len__(self) -> int:
        """Return the number of batches of this process."""
        rows = len(range(self.rank, self.n, self.world_size))
        return (rows + self.batch_size - 1) // self.batch_size

    def __iter__(self) -> Iterator[Batch]:
        plans = validation_plans(self.n, self.batch_size, rank=self.rank, world_size=self.world_size)
        view, device = View(self.img_size, self.preprocess), torch.device(self.device)
        bad = BadImages(self.index, None)
        feed = Feed(self.index, view, self.batch_size, device, self.workers, self.loading, bad)
        return make_batches(self._module.images, plans, feed)


def make_batches(open_images: OpenImages, plans: Iterator[Plan], feed: Feed) -> Generator[Batch, None, None]:
    """Yield a Batch per plan: copy its pixels to the device and make floats of them there."""
    finish = Finish(feed.view, feed.device)
    with open_images(plans, feed) as pixels:
        for plan, image in pixels:
            feed.bad.count(len(plan.rows), plan.replaced)
            labels = to_device(torch.from_numpy(feed.index.labels[plan.rows]), feed.device)
            yield Batch(finish(to_device(image, feed.device), plan.draws), labels, plan.epoch, plan.position)


def import_loader(name: str) -> ModuleType:
    """Import the module of a loader; it has the function ``images`` and the table ``STAGES`` (see feed.py)."""
    if name not in LOADERS:
        raise UserError(f"loader={name!r} must be one of {', '.join(LOADERS)}.{did_you_mean(name, LOADERS)}")
    try:
        return importlib.import_module(LOADERS[name])
    except ModuleNotFoundError as error:
        raise UserError(
            f"loader={name!r} needs the package {error.name!r}.\n"
            "Install it with pip install 'backbones[train]', or choose loader=reference."
        ) from error
