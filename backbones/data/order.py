"""Images of each micro-batch and their random numbers: pure functions of (seed, epoch, position).

Nothing here has state, so a run can go on at any step, on any number of processes. Position p of an epoch is the p-th
image of that epoch's permutation. Its random numbers are row p of a counter-based stream (Philox 4x64), so the numbers
of positions [a, b) are a slice of those of [0, n).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from backbones.data.augment.draws import DRAWS
from backbones.dataset.random_numbers import permutation, uniforms
from backbones.errors import UserError


class Plan(NamedTuple):
    """One micro-batch before any image is read.

    Shape: rows (N,) int64 rows of the index; draws (N, DRAWS) float64 in [0, 1), unused by validation.
    """

    epoch: int
    position: int
    """Position of the first image in the epoch; the others follow it."""
    rows: np.ndarray
    draws: np.ndarray
    replaced: int = 0
    """Number of images replaced because the planned image is bad."""


@dataclass(frozen=True)
class Shares:
    """Division of one optimizer step's images among accumulation steps and processes."""

    batch_size: int
    """Images per optimizer step, over all processes and accumulation steps."""
    grad_accum_steps: int = 1
    """Micro-batches per process and step."""
    rank: int = 0
    """Number of this process among all processes of all machines."""
    world_size: int = 1
    """Number of processes."""

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world_size:
            raise UserError(f"rank={self.rank} must lie in [0, world_size={self.world_size})")
        parts = self.world_size * self.grad_accum_steps
        if self.batch_size % parts:
            raise UserError(
                f"batch_size={self.batch_size} must be a multiple of {parts} = {self.world_size} processes x "
                f"grad_accum_steps={self.grad_accum_steps}.\n"
                f"Try batch_size={max(1, self.batch_size // parts) * parts}."
            )

    @property
    def micro_batch(self) -> int:
        """Images of one forward pass of one process."""
        return self.batch_size // (self.grad_accum_steps * self.world_size)

    def steps_per_epoch(self, size: int) -> int:
        """Return the number of whole batches in ``size`` images; the rest of the epoch is dropped."""
        if size < self.batch_size:
            raise UserError(
                f"batch_size={self.batch_size} is larger than the data set of {size} images.\n"
                f"Use batch_size={size} or less, or check that data_dir is complete."
            )
        return size // self.batch_size

    def starts(self, step: int) -> Iterator[int]:
        """Yield the first position of each micro-batch of this process in ``step``, counted from the epoch's start."""
        for part in range(self.grad_accum_steps):
            yield step * self.batch_size + (part * self.world_size + self.rank) * self.micro_batch


def training_plans(size: int, shares: Shares, *, seed: int, step: int = 0) -> Iterator[Plan]:
    """Yield this process's micro-batches from optimizer step ``step`` of the run on, without end.

    Every position of an epoch except its dropped end belongs to exactly one micro-batch of one process. Step s of an
    epoch holds positions [s * batch_size, (s + 1) * batch_size) for any number of processes and accumulation steps.
    """
    steps = shares.steps_per_epoch(size)
    epoch, first = divmod(step, steps)
    while True:
        order = permutation(seed, epoch, size)
        for number in range(first, steps):
            for start in shares.starts(number):
                stop = start + shares.micro_batch
                draws = uniforms(seed, epoch, start, stop, DRAWS, stream="augment")
                yield Plan(epoch, start, order[start:stop], draws)
        epoch, first = epoch + 1, 0


def validation_plans(size: int, batch_size: int, *, rank: int = 0, world_size: int = 1) -> Iterator[Plan]:
    """Yield the rows rank, rank + world_size, ... in batches: each row once over all processes.

    A process may have fewer batches than another, even none. ``position`` is the first row of the batch.
    """
    rows = np.arange(rank, size, world_size, dtype=np.int64)
    for start in range(0, len(rows), batch_size):
        part = rows[start : start + batch_size]
        yield Plan(0, int(part[0]), part, np.zeros((len(part), DRAWS)))
