"""Check of every image of all splits, in worker processes."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from typing import NamedTuple, Self

import numpy as np

from backbones.dataset.index import Index
from backbones.dataset.place import Place
from backbones.dataset.verification.look import Look, Remark, look_at
from backbones.dataset.workers import JOBS_PER_WORKER, as_they_finish
from backbones.errors import UserError

IMAGES_PER_CHUNK = 32
"""Images that a worker checks before it reports."""


@dataclass(eq=False)
class Survey:
    """Properties of the images of a split: a few numbers for each.

    Shape: kinds (N,) uint16, digests (N,) uint64, remarks (N,) uint8, sizes (N, 2) int32; all 0 for a bad image.
    """

    index: Index
    kinds: np.ndarray
    """Position in ``kind_names`` plus 1."""
    digests: np.ndarray
    remarks: np.ndarray
    sizes: np.ndarray
    """Height and width in pixels."""
    kind_names: list[str] = field(default_factory=list)
    reasons: dict[int, str] = field(default_factory=dict)
    """Row of a bad image -> reason."""

    @classmethod
    def of(cls, index: Index) -> Self:
        """Return the survey of a split before any image is checked."""
        count = len(index)
        kinds, digests, remarks = (np.zeros(count, dtype) for dtype in (np.uint16, np.uint64, np.uint8))
        return cls(index, kinds, digests, remarks, np.zeros((count, 2), np.int32))

    def record(self, first: int, looks: Sequence[Look]) -> None:
        """Record the properties of the images from row ``first`` on."""
        for row, look in enumerate(looks, first):
            if look.reason:
                self.reasons[row] = look.reason
                continue
            if look.kind not in self.kind_names:
                self.kind_names.append(look.kind)
            self.kinds[row] = self.kind_names.index(look.kind) + 1
            self.digests[row], self.remarks[row] = look.digest, look.remarks
            self.sizes[row] = look.height, look.width

    @property
    def usable(self) -> np.ndarray:
        """Rows of the images that can be used."""
        return np.flatnonzero(self.kinds)

    def count_kinds(self) -> dict[str, int]:
        """Return the number of images of each kind, the most frequent first."""
        counts = np.bincount(self.kinds, minlength=len(self.kind_names) + 1)[1:].tolist()
        return dict(sorted(zip(self.kind_names, counts, strict=True), key=lambda pair: (-pair[1], pair[0])))

    def rows_with(self, remark: Remark) -> np.ndarray:
        """Return the rows of the images with ``remark``."""
        return np.flatnonzero(self.remarks & remark)


def survey(
    splits: Mapping[str, Index],
    *,
    executor: Executor | None = None,
    workers: int = 1,
    seen: Callable[[int], None] = lambda _: None,
) -> dict[str, Survey]:
    """Check every image of ``splits``.

    Args:
        splits: images by the name of the split.
        executor: processes that share the work; None: this process does it.
        workers: number of processes of ``executor``.
        seen: called with the number of images that are done.

    Raises:
        UserError: a worker died. The message names the images that it may have checked.
    """
    surveys = {name: Survey.of(index) for name, index in splits.items()}
    under_way: dict[tuple[str, int], _Chunk] = {}
    done = 0
    try:
        for report in as_they_finish(_look_at_all, _chunks(splits, under_way), executor, JOBS_PER_WORKER * workers):
            surveys[report.split].record(report.first, report.looks)
            del under_way[report.split, report.first]
            done += len(report.looks)
            seen(done)
    except (BrokenProcessPool, MemoryError):
        raise _name_suspects(under_way.values()) from None
    return surveys


class _Chunk(NamedTuple):
    """Consecutive rows of one split."""

    split: str
    first: int
    images: list[tuple[Place, str]]
    """Place and name of each image."""

    def __str__(self) -> str:
        return f"{self.split}/{self.images[0][1]} to {self.split}/{self.images[-1][1]}"


class _Report(NamedTuple):
    """Properties of the images of a chunk."""

    split: str
    first: int
    looks: list[Look]


def _chunks(splits: Mapping[str, Index], under_way: dict[tuple[str, int], _Chunk]) -> Iterator[_Chunk]:
    """Yield every image once, and note each chunk in ``under_way``."""
    for split, index in splits.items():
        for first in range(0, len(index), IMAGES_PER_CHUNK):
            rows = range(first, min(first + IMAGES_PER_CHUNK, len(index)))
            chunk = _Chunk(split, first, [(index.place(row), index.names[row]) for row in rows])
            under_way[split, first] = chunk
            yield chunk


def _look_at_all(chunk: _Chunk) -> _Report:
    return _Report(chunk.split, chunk.first, [look_at(place, name) for place, name in chunk.images])


def _name_suspects(chunks: Iterable[_Chunk]) -> UserError:
    return UserError(
        "A worker process died or ran out of memory while it checked some of these images:\n"
        + "".join(f"  {chunk}\n" for chunk in chunks)
        + "Try again with fewer --workers: they need less memory."
    )
