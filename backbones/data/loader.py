"""The batches that training and evaluation see: float images on the device, labels, and where in the epoch they are."""

import importlib
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import KW_ONLY, dataclass, field
from typing import Self

import torch

from backbones.data.augment.finish import Finish
from backbones.data.augment.view import View
from backbones.data.batch import Batch, to_device
from backbones.data.feed import Backend, Feed, Pixels
from backbones.data.order import Shares, training_plans, validation_plans
from backbones.data.reading.bad_images import BadImages
from backbones.dataset.index import Index
from backbones.errors import UserError, did_you_mean
from backbones.recipe import Augment, LoaderName, Loading, Preprocess

BACKENDS = {
    "dali": "backbones.data.pipeline",
    "reference": "backbones.data.reference",
    "synthetic": "backbones.data.synthetic",
}
"""Module of each loader's ``images``; imported when asked for, so that only "dali" needs DALI."""


@dataclass(eq=False)
class TrainLoader:
    """This process's micro-batches of an endless training run.

    The images, crops and flips of a step depend on (index, seed, epoch, step) alone: not on the number of processes,
    accumulation steps, threads or on where the run was resumed. Raises UserError where the batch does not fit.
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
    """Threads that read, batches ahead, and what a bad image does."""

    def __post_init__(self) -> None:
        self.bad = BadImages(self.index, self.loading, world_size=self.world_size)
        self._shares = Shares(self.batch_size, self.grad_accum_steps, self.rank, self.world_size)
        self.steps_per_epoch = self._shares.steps_per_epoch(len(self.index))
        self.dropped = len(self.index) % self.batch_size
        self._images = backend(self.loader)
        self._stream = Stream()

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        """Yield the micro-batches of ``epoch`` from ``start_step`` on: grad_accum_steps of them per step.

        Threads run ahead, over the end of the epoch too; a jump to another place starts them anew.
        """
        if not 0 <= start_step <= self.steps_per_epoch:
            raise ValueError(f"start_step={start_step} must lie in [0, {self.steps_per_epoch}]")
        per_epoch = self.steps_per_epoch * self.grad_accum_steps
        places = range(epoch * per_epoch + start_step * self.grad_accum_steps, (epoch + 1) * per_epoch)
        if places and self._stream.place != places[0]:
            self.close()
            self._stream = Stream(self._read(epoch, start_step), places[0])
        stream = self._stream
        for place in places:
            yield stream.take(place)

    def from_step(self, step: int) -> Generator[Batch, None, None]:
        """Yield micro-batches from optimizer step ``step`` of the run on, without end."""
        try:
            epoch, start = divmod(step, self.steps_per_epoch)
            while True:
                yield from self.epoch(epoch, start)
                epoch, start = epoch + 1, 0
        finally:
            self.close()

    def counters(self) -> dict[str, int]:
        """Return what was counted so far."""
        return {"data/replaced": self.bad.replaced}

    @property
    def replaced(self) -> int:
        """Bad images in whose place others were taken, so far."""
        return self.bad.replaced

    def close(self) -> None:
        """End the threads; the loader can be used again."""
        self._stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(self, epoch: int, step: int) -> Generator[Batch, None, None]:
        plans = training_plans(len(self.index), self._shares, seed=self.seed, epoch=epoch, step=step)
        view = View(self.img_size, self.preprocess, self.augment)
        device = torch.device(self.device)
        feed = Feed(self.index, view, self._shares.micro_batch, device, self.workers, self.loading, self.bad)
        return batches(self._images(plans, feed), feed)


class Stream:
    """A running iterator of micro-batches, counted from the start of training."""

    def __init__(self, source: Generator[Batch, None, None] | None = None, place: int = -1) -> None:
        self.source = source
        self.place = place
        """Number of the micro-batch that comes next; -1: none, the stream is closed or failed."""

    def take(self, place: int) -> Batch:
        """Return micro-batch ``place``, which must be the next one: two readers would disturb each other."""
        if self.source is None or place != self.place:
            raise RuntimeError(f"micro-batch {place} was asked for, but the loader was closed or read by another")
        self.place = -1
        batch = next(self.source)
        self.place = place + 1
        return batch

    def close(self) -> None:
        """End the threads behind the stream."""
        if self.source is not None:
            self.source.close()
        self.source, self.place = None, -1


@dataclass(eq=False)
class EvalLoader:
    """This process's share of the validation images, in batches; iterable any number of times.

    Over all processes every image comes exactly once: nothing is padded, repeated or dropped, so a process may have
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
    """Threads that read, and batches ahead; a bad image always stops."""

    def __post_init__(self) -> None:
        self.n = len(self.index)
        self._images = backend(self.loader)

    def __len__(self) -> int:
        """Return the number of batches of this process."""
        rows = len(range(self.rank, self.n, self.world_size))
        return (rows + self.batch_size - 1) // self.batch_size

    def __iter__(self) -> Iterator[Batch]:
        plans = validation_plans(self.n, self.batch_size, rank=self.rank, world_size=self.world_size)
        view = View(self.img_size, self.preprocess)
        device, bad = torch.device(self.device), BadImages(self.index, None)
        feed = Feed(self.index, view, self.batch_size, device, self.workers, self.loading, bad)
        return batches(self._images(plans, feed), feed)


def batches(pixels: Pixels, feed: Feed) -> Generator[Batch, None, None]:
    """Yield a Batch per plan: bytes cross to the device and become floats there."""
    finish = Finish(feed.view, feed.device)
    with closing(pixels):
        for plan, image in pixels:
            feed.bad.count(len(plan.rows), plan.replaced)
            labels = to_device(torch.from_numpy(feed.index.labels[plan.rows]), feed.device)
            yield Batch(finish(to_device(image, feed.device), plan.draws), labels, plan.epoch, plan.position)


def backend(name: str) -> Backend:
    """Return the ``images`` function of a loader, importing its module."""
    if name not in BACKENDS:
        raise UserError(f"loader={name!r} must be one of {', '.join(BACKENDS)}.{did_you_mean(name, BACKENDS)}")
    try:
        return importlib.import_module(BACKENDS[name]).images
    except ModuleNotFoundError as error:
        raise UserError(
            f"loader={name!r} needs the package {error.name!r}.\n"
            "Install it with pip install 'backbones[train]', or choose loader=reference."
        ) from error
