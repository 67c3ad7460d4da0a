"""Tests of the list of excluded images: written and read, also by hand, and applied."""

from pathlib import Path

import pytest

from backbones.dataset.index import Row, make_index
from backbones.dataset.quarantine import read_quarantine, refuse_quarantined, remove_quarantined, write_quarantine
from backbones.errors import UserError
from tests.dataset.make_sources import write

HEADER = b"split\tname\treason\n"
INDEX = make_index(
    Path(), ("a", "b"), [Row(0, "a/1.jpg", "x", 0, 1), Row(1, "b/1.jpg", "x", 0, 1), Row(1, "b/2.jpg", "x", 0, 1)]
)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    entries = {"train": {"b/2.jpg": "truncated", "b/\udcff é 1.jpg": "empty"}, "val": {"a/1.jpg": ""}}
    write_quarantine(tmp_path, entries)
    assert read_quarantine(tmp_path) == entries


def test_one_line_for_each_image_is_written(tmp_path: Path) -> None:
    file = write_quarantine(tmp_path, {"train": {"b/2.jpg": "cut\tshort\n at byte 7", "b/1.jpg": "empty"}})
    assert file.read_bytes() == HEADER + b"train\tb/1.jpg\tempty\ntrain\tb/2.jpg\tcut short at byte 7\n"


def test_without_a_list_nothing_is_quarantined(tmp_path: Path) -> None:
    assert read_quarantine(tmp_path) == {"train": {}, "val": {}}


def test_a_list_that_was_edited_elsewhere_is_read(tmp_path: Path) -> None:
    write(tmp_path / "quarantine.tsv", b"split\tname\treason\r\ntrain\tb/2.jpg\tbad\r\n\r\n")
    assert read_quarantine(tmp_path)["train"] == {"b/2.jpg": "bad"}


@pytest.mark.parametrize("line", [b"train\tb/2.jpg", b"test\tb/2.jpg\tbad", b"train\t\tbad", b"train b/2.jpg bad"])
def test_a_line_that_is_not_understood_is_refused_by_number(tmp_path: Path, line: bytes) -> None:
    write(tmp_path / "quarantine.tsv", HEADER + b"train\tb/1.jpg\tbad\n" + line + b"\n")
    with pytest.raises(UserError, match=r"quarantine\.tsv, line 3"):
        read_quarantine(tmp_path)


def test_a_list_without_its_header_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "quarantine.tsv", b"train\tb/1.jpg\tbad\n")
    with pytest.raises(UserError, match="line 1: expected split, name, reason"):
        read_quarantine(tmp_path)


def test_a_name_that_would_break_its_line_is_written_with_backslashes(tmp_path: Path) -> None:
    file = write_quarantine(tmp_path, {"train": {"a\tb\rc\nd\\e.jpg": "bad"}})
    assert file.read_bytes() == HEADER + b"train\t" + rb"a\tb\rc\nd\\e.jpg" + b"\tbad\n"


@pytest.mark.parametrize(
    "name", ["a\tb.jpg", "a\nb.jpg", "a\r", "a\\tb.jpg", "a\\\tb.jpg", "a\\", "\\\\n\n", "\udcff\t"]
)
def test_any_name_is_read_as_it_was_written(tmp_path: Path, name: str) -> None:
    entries = {"train": {name: "bad", "b/2.jpg": "bad"}, "val": {}}
    write_quarantine(tmp_path, entries)
    assert read_quarantine(tmp_path) == entries


def test_a_backslash_that_a_person_wrote_before_another_letter_stands_for_itself(tmp_path: Path) -> None:
    write(tmp_path / "quarantine.tsv", HEADER + b"train\tb/\\2.jpg\tbad\n")
    assert read_quarantine(tmp_path)["train"] == {"b/\\2.jpg": "bad"}


def test_names_that_are_not_there_are_noted(tmp_path: Path) -> None:
    index = remove_quarantined(INDEX, {"b/2.jpg": "bad", "c/9.jpg": "bad"})
    assert list(index.names) == ["a/1.jpg", "b/1.jpg"]
    assert index.notes[1] == "1 names of quarantine.tsv are not in the data set: c/9.jpg"
    assert refuse_quarantined(INDEX, {"c/9.jpg": "bad"}).notes == index.notes[1:]


def test_a_class_that_has_no_image_left_is_refused() -> None:
    with pytest.raises(UserError, match="no training image of b"):
        remove_quarantined(INDEX, {"b/1.jpg": "bad", "b/2.jpg": "bad"})


def test_a_name_in_another_unicode_form_is_spelled(tmp_path: Path) -> None:
    index = make_index(tmp_path, ("a",), [Row(0, "a/caf\u00e9.jpg", "x", 0, 1), Row(0, "a/b.jpg", "y", 0, 1)])
    (note,) = refuse_quarantined(index, {"a/cafe\u0301.jpg": "bad"}).notes
    assert "'a/cafe\\u0301.jpg' (NFD)" in note
    assert "'a/caf\\xe9.jpg' (NFC)" in note
