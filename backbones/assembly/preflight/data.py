"""Checks of the data: classes, shards of all processes, largest images, and the number of images in an evaluation."""

from collections.abc import Iterator

import numpy as np

from backbones.assembly.preflight.row import Row
from backbones.data.order import Shares, validation_plans
from backbones.dataset.encoded import decode, read_header
from backbones.dataset.index import Index
from backbones.dataset.place import BadImageError, read_bytes
from backbones.dataset.random_numbers import permutation
from backbones.recipe import Recipe

LARGEST = 8
"""Number of the largest files that are decoded."""


def check_classes(train: Index, val: Index) -> Iterator[Row]:
    """Compare the classes of both splits, which must be the same in the same order, each with images."""
    images = f"{len(train)} training and {len(val)} validation images in {len(train.classes)} classes"
    empty = np.flatnonzero(np.bincount(train.labels, minlength=len(train.classes)) == 0)
    if train.classes != val.classes:
        wrong = next(pair for pair in zip(train.classes, val.classes, strict=False) if pair[0] != pair[1])
        yield Row("classes", passed=False, found=f"{images}; train has {wrong[0]} where val has {wrong[1]}")
    elif len(empty):
        yield Row("classes", passed=False, found=f"{images}; no training image of {train.classes[empty[0]]}")
    else:
        order = f"in the same order: {train.classes[0]} is 0, {train.classes[-1]} is {len(train.classes) - 1}"
        yield Row("classes", passed=True, found=f"{images}, {order}")


def check_shards(recipe: Recipe, train: Index, val: Index, processes: int) -> Iterator[Row]:
    """Count how often each image comes in an epoch and in a validation, over all processes."""
    counts = count_training_images(recipe, len(train), processes)
    left = int((counts == 0).sum())
    expected = len(train) % recipe.batch_size
    passed = counts.max() == 1 and left == expected
    found = f"each image once over {processes} processes; {left} are left out of an epoch, others each time"
    yield Row("train shards", bool(passed), found if passed else f"images come {counts.min()} to {counts.max()} times")
    validated = np.zeros(len(val), np.int64)
    for rank in range(processes):
        for plan in validation_plans(len(val), recipe.batch_size, rank=rank, world_size=processes):
            validated[plan.rows] += 1
    passed = bool((validated == 1).all())
    found = f"each of {len(val)} images once" if passed else f"{int((validated != 1).sum())} images not exactly once"
    yield Row("val shards", passed, found)


def count_training_images(recipe: Recipe, size: int, processes: int) -> np.ndarray:
    """Return how often each image comes in the first epoch.

    Shape:
        -> (size,)
    """
    order, counts = permutation(recipe.seed, 0, size), np.zeros(size, np.int64)
    for rank in range(processes):
        shares = Shares(recipe.batch_size, recipe.grad_accum_steps, rank, processes)
        for step in range(shares.steps_per_epoch(size)):
            for start in shares.starts(step):
                counts[order[start : start + shares.micro_batch]] += 1
    return counts


def check_largest(train: Index, val: Index) -> Iterator[Row]:
    """Decode the largest files of both splits."""
    for split, index in (("train", train), ("val", val)):
        largest = (0, 0, 0)
        for row in np.argsort(-index.lengths, kind="stable")[:LARGEST].tolist():
            try:
                data = read_bytes(index.place(row))
                header = read_header(data)
                decode(data)
            except BadImageError as error:
                yield Row(f"largest {split}", passed=False, found=f"{index.describe(row)} cannot be decoded: {error}")
                return
            largest = max(largest, (header.width * header.height, header.width, header.height))
        megabytes = int(index.lengths.max()) / 1e6
        found = f"{largest[1]} x {largest[2]} pixels, {megabytes:.1f} MB"
        yield Row(f"largest {split}", passed=True, found=f"the {LARGEST} largest files decode; up to {found}")
