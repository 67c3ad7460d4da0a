"""Images for prediction, as the reference loader makes them for evaluation: one that cannot be read is passed over."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
import torch

from backbones.data.augment.draws import DRAWS
from backbones.data.augment.view import View
from backbones.data.feed import Feed
from backbones.data.loader import make_batches
from backbones.data.order import Plan
from backbones.data.reading.bad_images import BadImages
from backbones.data.reference import images
from backbones.dataset.index import Index
from backbones.recipe import Loading, Preprocess


@dataclass(frozen=True, eq=False)
class TolerantBatch:
    """Images of consecutive rows of an index, and those that cannot be read.

    Shape: images (N, 3, H, W) float32, normalized; rows (N,).
    """

    images: torch.Tensor
    rows: list[int]
    """Row of each image."""
    bad: dict[int, str]
    """Row -> reason."""


class TolerantLoader:
    """Batches of all images of an index, in order.

    At most ``workers`` decoded images are in memory at a time, however large a batch is.

    Args:
        index: the files.
        img_size: height and width of the images in pixels.
        preprocess: protocol of evaluation.
        batch_size: rows of a batch.
        workers: decoding threads.
        device: device of the images.
    """

    def __init__(
        self,
        index: Index,
        *,
        img_size: int,
        preprocess: Preprocess,
        batch_size: int,
        workers: int,
        device: torch.device,
    ) -> None:
        self.index, self.batch_size, self.workers = index, batch_size, workers
        loading = Loading(read_threads=1, decode_check=0)
        self._feed = Feed(index, View(img_size, preprocess), 1, device, 1, loading, _Refusal(index, None))

    def __iter__(self) -> Iterator[TolerantBatch]:
        with ThreadPoolExecutor(self.workers) as pool:
            for start in range(0, len(self.index), self.batch_size):
                rows = range(start, min(start + self.batch_size, len(self.index)))
                yield _collect(dict(zip(rows, pool.map(self._read, rows), strict=True)))

    def _read(self, row: int) -> torch.Tensor | str:
        """Return the image in ``row``, (1, 3, H, W), or the reason why there is none."""
        plan = Plan(0, row, np.array([row], np.int64), np.zeros((1, DRAWS)))
        try:
            (batch,) = make_batches(images, iter([plan]), self._feed)
        except _RefusedError as error:
            return error.args[1]
        return batch.images


class _RefusedError(Exception):
    """Error for an image that cannot be decoded: its row and the reason."""


class _Refusal(BadImages):
    """The rule that a bad image is neither replaced nor ends the run."""

    def report(self, row: int, reason: str) -> NoReturn:
        raise _RefusedError(row, reason)


def _collect(results: dict[int, torch.Tensor | str]) -> TolerantBatch:
    good = {row: result for row, result in results.items() if isinstance(result, torch.Tensor)}
    bad = {row: result for row, result in results.items() if isinstance(result, str)}
    stacked = torch.cat([*good.values()]) if good else torch.empty(0)
    return TolerantBatch(stacked, list(good), bad)
