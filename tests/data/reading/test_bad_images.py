"""Tests of the rule for bad images: their replacements, their limit, and the messages."""

import pytest

from backbones.data.reading.bad_images import BadImages
from backbones.data.synthetic import synthetic_index
from backbones.errors import UserError
from backbones.recipe import Loading

INDEX = synthetic_index(2, 10_000)
SKIP = Loading(bad_images="skip")


def test_candidates_are_the_image_itself_then_its_class_from_there_on_around() -> None:
    index = synthetic_index(3, 4)
    assert list(take(BadImages(index, SKIP).candidates(6), 4)) == [6, 7, 4, 5]


def take(candidates, count: int):
    return [next(candidates) for _ in range(count)]


def test_known_bad_images_are_no_candidates() -> None:
    bad = BadImages(synthetic_index(3, 4), SKIP)
    bad.rows.update({6, 4})
    assert take(bad.candidates(6), 2) == [7, 5]


def test_a_class_without_a_good_image_is_named() -> None:
    bad = BadImages(synthetic_index(3, 4), SKIP)
    bad.rows.update({4, 5, 6, 7})
    with pytest.raises(UserError, match="class class_0001 can be decoded"):
        next(bad.candidates(5))


def test_one_in_ten_thousand_images_may_be_replaced_and_no_more() -> None:
    bad = BadImages(INDEX, SKIP)
    bad.count(100, 2)  # 2 of the 20,000 images of an epoch
    with pytest.raises(UserError, match=r"3 of 20000 training images .* --bad-images-limit 0\.0001"):
        bad.count(100, 1)


def test_the_share_is_of_all_that_was_read_once_that_is_more_than_an_epoch() -> None:
    bad = BadImages(INDEX, SKIP)
    for _ in range(4):
        bad.count(20_000, 2)
    assert (bad.read, bad.replaced) == (80_000, 8)


def test_a_process_may_replace_as_many_as_its_part_of_an_epoch_allows() -> None:
    bad = BadImages(INDEX, SKIP, world_size=2)
    bad.count(100, 1)
    with pytest.raises(UserError, match="2 of 10000"):
        bad.count(100, 1)


def test_only_the_first_ten_are_named(capsys) -> None:
    bad = BadImages(INDEX, SKIP)
    for row in [*range(15), *range(15)]:
        bad.report(row, "it is empty")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 10
    assert lines[0].endswith("class_0000/000000: it is empty; another of its class is used")
    assert "further ones are only counted" in lines[9]
