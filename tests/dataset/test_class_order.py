"""Tests of the order of class names by the numbers in them."""

import pytest

from backbones.dataset.class_order import begin_of, numeric_order


@pytest.mark.parametrize(
    ("names", "ordered"),
    [
        (["0", "1", "10", "2"], ("0", "1", "2", "10")),
        (["1", "10", "2", "9"], ("1", "2", "9", "10")),
        (["class_1", "class_10", "class_2"], ("class_1", "class_2", "class_10")),
        (["10th", "9th"], ("9th", "10th")),
        (["n01440764", "n02094433"], ("n01440764", "n02094433")),
        (["000", "001", "010"], ("000", "001", "010")),
    ],
)
def test_names_with_one_number_are_ordered_by_it(names: list[str], ordered: tuple[str, ...]) -> None:
    assert numeric_order(names) == ordered


@pytest.mark.parametrize("names", [["1", "01"], ["a", "1"], ["a1", "b2"], ["1.5", "2"], ["1-1", "1-2"], ["", "1"]])
def test_other_names_have_no_order_by_numbers(names: list[str]) -> None:
    assert numeric_order(names) is None


def test_the_begin_of_an_order_says_that_it_goes_on() -> None:
    assert begin_of(["0", "1", "2", "3"]) == "0, 1, 2, 3"
    assert begin_of(["0", "1", "2", "3", "4"]) == "0, 1, 2, 3, ..."
