"""A smaller data set: some of the classes and some of their training images, chosen by a seed."""

import numpy as np

from backbones.dataset.index import Index
from backbones.dataset.random_numbers import permutation
from backbones.errors import UserError


def choose_classes(classes: tuple[str, ...], count: int, seed: int) -> tuple[str, ...]:
    """Return ``count`` of the classes, sorted. They are the first of a permutation, so that fewer are part of more."""
    if not 1 <= count <= len(classes):
        raise UserError(f"classes={count} must lie in [1, {len(classes)}], the number of classes in the data set.")
    return tuple(classes[k] for k in np.sort(permutation(seed, 0, len(classes))[:count]))


def take_classes(index: Index, classes: tuple[str, ...]) -> Index:
    """Return the images of ``classes`` (sorted)."""
    chosen = frozenset(classes)
    is_taken = np.array([name in chosen for name in index.classes], dtype=bool)
    return index.take(np.flatnonzero(is_taken[index.labels]), classes)


def limit_images(index: Index, per_class: int, seed: int) -> Index:
    """Return ``per_class`` images of each class, or all images of a smaller class.

    The choice in a class depends only on ``seed``, its label and its number of images.
    """
    kept = [np.zeros(0, dtype=np.int64)]
    ends = np.searchsorted(index.labels, np.arange(1, len(index.classes)))
    for label, rows in enumerate(np.split(np.arange(len(index)), ends)):
        kept.append(rows[permutation(seed, 1 + label, len(rows))[:per_class]])
    return index.take(np.sort(np.concatenate(kept)))
