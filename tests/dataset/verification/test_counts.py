"""Counts are compared with ImageNet's where the classes are ImageNet's."""

from pathlib import Path

import numpy as np
import pytest

from backbones.dataset.index import Index, Strings
from backbones.dataset.verification.counts import IMAGENET_IMAGES, find_miscounts

WORDNET_IDS = tuple(f"n{1440764 + 13 * k:08d}" for k in range(1000))
TRAIN_COUNTS = [732] * 33 + [1211] + [1300] * 966
"""With ImageNet's fewest, most and sum."""


def make_index(counts: list[int], classes: tuple[str, ...] = WORDNET_IDS) -> Index:
    """An index of which only the labels matter."""
    labels = np.repeat(np.arange(len(counts)), counts)
    nothing = np.zeros(len(labels), np.int64)
    return Index(Path(), classes, Strings.of([]), Strings.of([]), nothing, nothing, nothing, labels, "")


def with_count(counts: list[int], label: int, count: int) -> list[int]:
    return [*counts[:label], count, *counts[label + 1 :]]


def test_imagenet_has_the_counts_of_imagenet():
    assert sum(TRAIN_COUNTS) == IMAGENET_IMAGES["train"] == 1281167
    assert find_miscounts({"train": make_index(TRAIN_COUNTS), "val": make_index([50] * 1000)}) == []


def test_an_incomplete_imagenet_is_make_index():
    train = make_index(with_count(TRAIN_COUNTS, 0, 700))
    assert find_miscounts({"train": train, "val": make_index([50] * 1000)}) == [
        "train has only 1281135 of ImageNet's 1281167 images",
        f"train has 1 of 1000 classes with fewer than 732 images: {WORDNET_IDS[0]} (700)",
    ]


def test_validation_images_in_the_wrong_class_are_noticed_though_none_is_missing():
    val = make_index(with_count(with_count([50] * 1000, 5, 49), 7, 51))
    assert find_miscounts({"train": make_index(TRAIN_COUNTS), "val": val}) == [
        f"val has 1 of 1000 classes with fewer than 50 images: {WORDNET_IDS[5]} (49)",
        f"val has 1 of 1000 classes with more than 50 images: {WORDNET_IDS[7]} (51)",
    ]


def test_too_many_images_are_not_called_few():
    found = find_miscounts({"train": make_index(TRAIN_COUNTS), "val": make_index(with_count([50] * 1000, 0, 51))})
    assert found[0] == "val has 50001 of ImageNet's 50000 images"


@pytest.mark.parametrize("classes", [WORDNET_IDS[:100], ("cat", *WORDNET_IDS[1:])], ids=["a hundred", "other names"])
def test_other_data_sets_may_have_any_count(classes):
    index = make_index([3] * len(classes), classes)
    assert find_miscounts({"train": index, "val": index}) == []
