"""Tests of names that look alike: they are found, and what a message shows of them differs."""

from pathlib import Path

import pytest

from backbones.dataset.class_names import (
    describe_look_alikes,
    describe_twins,
    find_look_alikes,
    refuse_equivalent,
    show,
    spell,
)
from backbones.errors import UserError

COMPOSED, DECOMPOSED = "caf\u00e9", "cafe\u0301"


@pytest.mark.parametrize("name", ["n01440764", "great white shark", "\u00e9clair", "\u72d7", "a,b'c"])
def test_a_name_that_can_be_seen_is_shown_as_it_is(name: str) -> None:
    assert show(name) == name


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (DECOMPOSED, "'cafe\\u0301' (NFD)"),
        ("cat ", "'cat '"),
        ("cat\u200b", "'cat\\u200b' (NFC)"),
        ("cat\u00a0fish", "'cat\\xa0fish' (NFC)"),
        ("caf\udce9", "'caf\\udce9' (not UTF-8)"),
        ("a\tb", "'a\\tb'"),
    ],
)
def test_a_name_that_cannot_be_seen_is_spelled(name: str, shown: str) -> None:
    assert show(name) == shown


def test_two_forms_of_a_name_are_spelled_differently_and_named() -> None:
    assert spell(COMPOSED) == "'caf\\xe9' (NFC)"
    assert spell(DECOMPOSED) == "'cafe\\u0301' (NFD)"
    assert spell("e\u0301\u00e9") == "'e\\u0301\\xe9' (neither NFC nor NFD)"


@pytest.mark.parametrize("other", [DECOMPOSED, "Caf\u00e9", "caf\u00e9 ", "caf\u00e9\u200d", "CAFE\u0301"])
def test_names_that_a_person_reads_as_one_are_found(other: str) -> None:
    assert find_look_alikes([COMPOSED, other, "dog"]) == [sorted([COMPOSED, other])]


def test_names_that_differ_in_letters_are_not_alike() -> None:
    assert find_look_alikes(["cat", "cats", "c at", "\u00e9", "e"]) == []
    assert describe_look_alikes(["cat", "dog"]) == ""


def test_the_advice_for_two_forms_is_a_command_and_for_other_differences_is_not() -> None:
    assert "convmv" in describe_look_alikes([COMPOSED, DECOMPOSED])
    assert "convmv" not in describe_look_alikes(["Cat", "cat"])


def test_two_forms_in_one_split_are_refused_with_both_spellings() -> None:
    with pytest.raises(UserError) as caught:
        refuse_equivalent(["ant", COMPOSED, DECOMPOSED], Path("/set/train"))
    assert all(text in str(caught.value) for text in ("/set/train", "'caf\\xe9' (NFC)", "'cafe\\u0301' (NFD)"))
    refuse_equivalent(["ant", "Ant", DECOMPOSED], Path("/set/train"))


def test_an_unknown_name_is_compared_with_the_known_ones() -> None:
    assert spell(DECOMPOSED) in describe_twins([DECOMPOSED], ["ant", COMPOSED, "Ant"])
    assert "nt" not in describe_twins([DECOMPOSED], ["ant", COMPOSED, "Ant"]).partition(":")[2].partition(".")[0]
    assert describe_twins(["bee"], ["ant", "Ant"]) == ""
