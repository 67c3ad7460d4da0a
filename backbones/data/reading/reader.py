"""Encoded images from the disk, a batch at a time, checked before a decoder sees them."""

import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import NamedTuple

import numpy as np

from backbones.data.feed import Feed
from backbones.data.order import Plan
from backbones.data.reading.bad_images import BadImages
from backbones.dataset.encoded import decode, is_whole, read_header
from backbones.dataset.place import BadImageError, read_bytes


class Encoded(NamedTuple):
    """One image in its stored form."""

    row: int
    data: bytes
    height: int
    width: int


class EncodedBatch(NamedTuple):
    """The images of a plan before decoding.

    Shape: sizes (N, 2) int64, height and width in pixels.
    """

    asked: Plan
    """The plan that was given."""
    plan: Plan
    """The same plan with the rows that were read: bad images are replaced."""
    data: list[np.ndarray]
    """The bytes of each image, uint8."""
    sizes: np.ndarray


@contextmanager
def read_plans(plans: Iterator[Plan], feed: Feed) -> Iterator[Iterator[tuple[Plan, EncodedBatch]]]:
    """Open an iterator of plans with their encoded images, without a decoder."""
    with closing(Reader(feed.bad, threads=feed.loading.read_threads)) as reader:
        yield ((batch.plan, batch) for batch in map(reader.read, plans))


class Reader:
    """Reader of batches with several threads.

    Args:
        bad: the rule for bad images.
        threads: number of threads.
        for_dali: return images that DALI and PIL read differently as bitmaps, made by PIL.
    """

    def __init__(self, bad: BadImages, *, threads: int, for_dali: bool = False) -> None:
        self.bad = bad
        self.for_dali = for_dali
        self.index = bad.index
        self.threads = threads
        self.pool = ThreadPoolExecutor(threads, thread_name_prefix="read")
        self.verified: set[int] = set()
        """Rows of images that have no end mark but can be decoded."""
        self.foreign: set[int] = set()
        """Rows of images that PIL decodes and DALI does not, though their header is usual: returned as bitmaps."""

    def read(self, plan: Plan) -> EncodedBatch:
        """Return the images of one plan. Raises UserError that names an image which must stop the run."""
        parts = np.array_split(plan.rows, self.threads)
        images = [image for part in self.pool.map(self._read_rows, parts) for image in part]
        rows = np.array([image.row for image in images], dtype=np.int64)
        data = [np.frombuffer(image.data, dtype=np.uint8) for image in images]
        sizes = np.array([(image.height, image.width) for image in images], dtype=np.int64).reshape(-1, 2)
        replaced = int((rows != plan.rows).sum())
        return EncodedBatch(plan, plan._replace(rows=rows, replaced=replaced), data, sizes)

    def renew(self, batch: EncodedBatch) -> EncodedBatch:
        """Return the batch, read again if one of its images was found to be bad or foreign in the meantime."""
        found = self.bad.rows | self.foreign
        return self.read(batch.asked) if found and not found.isdisjoint(batch.plan.rows.tolist()) else batch

    def refuse(self, row: int) -> None:
        """Record an image that DALI does not decode, or not to its size: as foreign if PIL decodes it, else as bad.

        Raises UserError where a bad image must stop the run.
        """
        try:
            if row in self.foreign:
                raise BadImageError("DALI refuses even what PIL decodes of it")
            decode(self._read_bytes(row))
            self.foreign.add(row)
        except BadImageError as error:
            self.bad.report(row, str(error))

    def close(self) -> None:
        """End the threads."""
        self.pool.shutdown(cancel_futures=True)

    def _read_rows(self, rows: np.ndarray) -> list[Encoded]:
        return [self._read_row(row) for row in rows.tolist()]

    def _read_row(self, row: int) -> Encoded:
        """Return the image in ``row``, or the one that replaces it."""
        for candidate in self.bad.candidates(row):
            try:
                return self._check(candidate)
            except BadImageError as error:
                self.bad.report(candidate, str(error))
        raise AssertionError("candidates raises when none is left")

    def _check(self, row: int) -> Encoded:
        """Return the image in ``row``; BadImageError where its header or its end is damaged."""
        data = self._read_bytes(row)
        header = read_header(data)
        if row in self.foreign or (self.for_dali and header.is_unusual):
            data = as_bitmap(data)
        elif row not in self.verified and not is_whole(data, header.kind):
            decode(data)
            self.verified.add(row)
        return Encoded(row, data, header.height, header.width)

    def _read_bytes(self, row: int) -> bytes:
        return read_bytes(self.index.place(row))


def as_bitmap(data: bytes) -> bytes:
    """Return an image in an uncompressed format that every decoder knows."""
    bitmap = io.BytesIO()
    decode(data).save(bitmap, format="BMP")
    return bitmap.getvalue()
