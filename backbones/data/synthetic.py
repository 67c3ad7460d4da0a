"""Images without a data set: pixels made from the row number and its label, for benchmarks and tests."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from backbones.data.feed import Feed, Pixels
from backbones.data.order import Plan
from backbones.dataset.index import Index, Row, make_index

SHIFTS = 256
"""Rows differ by where they cut a fixed noise tile: SHIFTS x SHIFTS places."""

GOLDEN = 0.618033988749895


def synthetic_index(classes: int, per_class: int) -> Index:
    """Return an index of classes x per_class rows that name no files."""
    names = tuple(f"class_{label:04d}" for label in range(classes))
    rows = (
        Row(label, path := f"{name}/{number:06d}", path, 0, 0)
        for label, name in enumerate(names)
        for number in range(per_class)
    )
    return make_index(Path("synthetic"), names, rows)


def images(plans: Iterator[Plan], feed: Feed) -> Pixels:
    """Yield each plan with its pixels: noise that the row chooses in a colour that its label chooses.

    The colour makes the classes learnable. The draws of the plan are not used.

    Shape: uint8 (N, size, size, 3).
    """
    size = feed.view.size
    side = size + SHIFTS
    tile = torch.from_numpy(np.random.Philox(key=0).random_raw(side * side * 3).astype(np.uint8) >> 1)
    tile = tile.view(side, side, 3)
    for plan in plans:
        labels = feed.index.labels[plan.rows]
        pairs = zip(plan.rows.tolist(), _colours(labels), strict=True)
        yield plan, torch.stack([_noise(tile, row, size) + colour for row, colour in pairs])


def _noise(tile: torch.Tensor, row: int, size: int) -> torch.Tensor:
    """Cut the tile at a place that no other row below SHIFTS ** 2 has."""
    top, left = row % SHIFTS, row // SHIFTS % SHIFTS
    return tile[top : top + size, left : left + size]


def _colours(labels: np.ndarray) -> torch.Tensor:
    """Return a colour per label, spread around the circle by the golden ratio.

    Shape: (N,) -> (N, 3) uint8 in [0, 128].
    """
    angles = 2 * np.pi * (labels[:, None] * GOLDEN + np.array([0, 1 / 3, 2 / 3]))
    return torch.from_numpy((64 + 64 * np.cos(angles)).astype(np.uint8))
