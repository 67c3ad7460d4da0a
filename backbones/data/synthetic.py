"""Images without a data set: pixels made from the row and its label, for benchmarks and tests."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from backbones.data.feed import Feed, OpenStage, Pixels
from backbones.data.order import Plan
from backbones.dataset.index import Index, Row, make_index

PLACES_PER_SIDE = 256
"""An image is cut from a fixed tile of noise at one of PLACES_PER_SIDE x PLACES_PER_SIDE places, chosen by its row."""

GOLDEN_RATIO = 0.618033988749895


def synthetic_index(classes: int, per_class: int) -> Index:
    """Return an index of classes x per_class rows that name no files."""
    names = tuple(f"class_{label:04d}" for label in range(classes))
    rows = (
        Row(label, path := f"{name}/{number:06d}", path, 0, 0)
        for label, name in enumerate(names)
        for number in range(per_class)
    )
    return make_index(Path("synthetic"), names, rows)


@contextmanager
def images(plans: Iterator[Plan], feed: Feed) -> Iterator[Pixels]:
    """Open an iterator of plans with their pixels: noise chosen by the row, in a colour chosen by the label.

    The colour makes the classes learnable. The draws of the plan are not used.

    Shape: uint8 (N, size, size, 3).
    """
    side = feed.view.size + PLACES_PER_SIDE
    noise = np.random.Philox(key=0).random_raw(side * side * 3).astype(np.uint8) >> 1
    tile = torch.from_numpy(noise).view(side, side, 3)
    yield ((plan, make_images(plan.rows, feed.index.labels[plan.rows], tile, size=feed.view.size)) for plan in plans)


STAGES: dict[str, OpenStage] = {"make": images}
"""Stages of this loader, each with the work before it, for TrainLoader.stages."""


def make_images(rows: np.ndarray, labels: np.ndarray, tile: torch.Tensor, *, size: int) -> torch.Tensor:
    """Return the image of each row.

    Shape: rows (N,), labels (N,), tile (S, S, 3) -> uint8 (N, size, size, 3).
    """
    pairs = zip(rows.tolist(), _colours(labels), strict=True)
    return torch.stack([_cut(tile, row, size) + colour for row, colour in pairs])


def _cut(tile: torch.Tensor, row: int, size: int) -> torch.Tensor:
    """Cut the tile at a place that no other row below PLACES_PER_SIDE ** 2 has."""
    top, left = row % PLACES_PER_SIDE, row // PLACES_PER_SIDE % PLACES_PER_SIDE
    return tile[top : top + size, left : left + size]


def _colours(labels: np.ndarray) -> torch.Tensor:
    """Return a colour per label, spread around the circle by the golden ratio.

    Shape: (N,) -> (N, 3) uint8 in [0, 128].
    """
    angles = 2 * np.pi * (labels[:, None] * GOLDEN_RATIO + np.array([0, 1 / 3, 2 / 3]))
    return torch.from_numpy((64 + 64 * np.cos(angles)).astype(np.uint8))
