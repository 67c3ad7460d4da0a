"""Encoded images from the disk, checked before a decoder sees them, a batch at a time."""

import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from backbones.data.order import Plan
from backbones.data.reading.bad_images import BadImages
from backbones.dataset.encoded import decode, is_whole, read_header
from backbones.dataset.place import BadImageError, read_bytes


class Encoded(NamedTuple):
    """One image as it is stored."""

    row: int
    data: bytes
    height: int
    width: int


class EncodedBatch(NamedTuple):
    """The images of a plan before decoding.

    Shape: sizes (N, 2) int64, height and width in pixels.
    """

    asked: Plan
    plan: Plan
    """What was asked for, with the rows of the images that take the place of bad ones."""
    data: list[np.ndarray]
    """uint8, as long as each image is in bytes."""
    sizes: np.ndarray


class Reader:
    """Reads batches with several threads. ``bad`` decides what a bad image does."""

    def __init__(self, bad: BadImages, *, threads: int) -> None:
        self.bad = bad
        self.index = bad.index
        self.threads = threads
        self.pool = ThreadPoolExecutor(threads, thread_name_prefix="read")
        self.verified: set[int] = set()
        """Images without an end mark that decode nevertheless."""
        self.foreign: set[int] = set()
        """Images that PIL decodes and the decoder does not: they are handed over as bitmaps."""

    def batches(self, plans: Iterator[Plan]) -> Iterator[EncodedBatch]:
        """Yield each plan with its images."""
        return map(self.read, plans)

    def read(self, plan: Plan) -> EncodedBatch:
        """Return the images of one plan; UserError names the one that cannot be used."""
        parts = np.array_split(plan.rows, self.threads)
        images = [image for part in self.pool.map(self._read_rows, parts) for image in part]
        rows = np.array([image.row for image in images], dtype=np.int64)
        data = [np.frombuffer(image.data, dtype=np.uint8) for image in images]
        sizes = np.array([(image.height, image.width) for image in images], dtype=np.int64).reshape(-1, 2)
        replaced = int((rows != plan.rows).sum())
        return EncodedBatch(plan, plan._replace(rows=rows, replaced=replaced), data, sizes)

    def renew(self, batch: EncodedBatch) -> EncodedBatch:
        """Return the batch, read anew if one of its images turned out to be bad or foreign after it was read."""
        found_out = self.bad.rows | self.foreign
        return self.read(batch.asked) if found_out and not found_out.isdisjoint(batch.plan.rows.tolist()) else batch

    def refuse(self, row: int) -> None:
        """Take note of an image that the decoder refuses: foreign if PIL decodes it, else bad.

        Raises UserError where a bad image must stop the run.
        """
        try:
            decode(self._bytes(row))
            self.foreign.add(row)
        except BadImageError as error:
            self.bad.report(row, str(error))

    def close(self) -> None:
        """End the threads."""
        self.pool.shutdown(cancel_futures=True)

    def _read_rows(self, rows: np.ndarray) -> list[Encoded]:
        return [self._read_row(row) for row in rows.tolist()]

    def _read_row(self, row: int) -> Encoded:
        """Return the image in ``row``, or the one that takes its place."""
        for candidate in self.bad.candidates(row):
            try:
                return self._checked(candidate)
            except BadImageError as error:
                self.bad.report(candidate, str(error))
        raise AssertionError("candidates raises when none is left")

    def _checked(self, row: int) -> Encoded:
        data = self._bytes(row)
        header = read_header(data)
        if row in self.foreign:
            data = as_bitmap(data)
        elif row not in self.verified and not is_whole(data, header.kind):
            decode(data)
            self.verified.add(row)
        return Encoded(row, data, header.height, header.width)

    def _bytes(self, row: int) -> bytes:
        return read_bytes(self.index.place(row))


def as_bitmap(data: bytes) -> bytes:
    """Return an image as an uncompressed one that every decoder knows."""
    bitmap = io.BytesIO()
    decode(data).save(bitmap, format="BMP")
    return bitmap.getvalue()
