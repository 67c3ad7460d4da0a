"""A smaller data set: the right numbers, the same choice every time, and parts of each other."""

from pathlib import Path

import numpy as np
import pytest

from backbones.dataset.index import Index, Row, make_index
from backbones.dataset.preparation.subset import choose_classes, limit_images, take_classes
from backbones.errors import UserError
from tests.dataset.counted_text import CountedText, counted_names

CLASSES = tuple(f"c{k:03d}" for k in range(100))


@pytest.fixture(scope="module")
def index() -> Index:
    """Class k has 10 + k % 7 images."""
    return make_index(
        Path(), CLASSES, [Row(k, f"{c}/{i:02d}", "x", i, 1) for k, c in enumerate(CLASSES) for i in range(10 + k % 7)]
    )


def test_the_choice_is_the_one_of_the_recorded_words() -> None:
    """Philox 4x64 words with key (seed, 0) and counter 0 order the classes; every numpy gives the same words."""
    words = np.random.Philox(key=np.array([5, 0], dtype=np.uint64), counter=np.zeros(4, dtype=np.uint64)).random_raw(
        100
    )
    assert choose_classes(CLASSES, 3, seed=5) == tuple(sorted(CLASSES[k] for k in np.argsort(words)[:3]))
    assert choose_classes(CLASSES, 3, seed=5) == ("c021", "c031", "c040")


def test_another_seed_chooses_others() -> None:
    assert choose_classes(CLASSES, 10, seed=0) != choose_classes(CLASSES, 10, seed=1)


def test_fewer_classes_are_a_part_of_more() -> None:
    assert set(choose_classes(CLASSES, 10, seed=0)) < set(choose_classes(CLASSES, 20, seed=0))


@pytest.mark.parametrize("count", [0, 101])
def test_a_number_take_classes_that_is_not_there_is_refused(count: int) -> None:
    with pytest.raises(UserError, match=rf"classes={count} must lie in \[1, 100\]"):
        choose_classes(CLASSES, count, seed=0)


def test_all_images_of_the_classes_are_kept_and_no_others(index: Index) -> None:
    kept = take_classes(index, ("c003", "c050"))
    assert list(kept.names) == [name for name in index.names if name[:4] in ("c003", "c050")]
    assert kept.labels.tolist() == [0] * 13 + [1] * 11


def test_each_class_keeps_so_many_images_or_all_it_has(index: Index) -> None:
    kept = limit_images(index, 12, seed=0)
    assert np.bincount(kept.labels).tolist() == [min(12, 10 + k % 7) for k in range(100)]
    assert set(kept.names) < set(index.names)


def test_images_are_not_just_the_first_of_a_class(index: Index) -> None:
    chosen = [int(name.split("/")[1]) for name in limit_images(index, 5, seed=0).names]
    assert 4 < np.mean(chosen) < 8  # 6 on average; the first five would be 2


def test_fewer_images_are_a_part_of_more(index: Index) -> None:
    assert set(limit_images(index, 3, seed=2).names) < set(limit_images(index, 6, seed=2).names)


def test_the_names_of_classes_are_not_compared_with_each_other() -> None:
    classes = counted_names(2_000)
    index = make_index(Path(), classes, [Row(k, f"{name}/1.jpg", "x.tar", k, 1) for k, name in enumerate(classes)])
    assert len(take_classes(index, classes[1::2])) == 1_000
    assert CountedText.comparisons <= 5 * len(classes)
