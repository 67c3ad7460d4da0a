"""Tests of reading the bytes of an image: whole files, parts of archives, and the errors of each."""

import errno
import os
from pathlib import Path

import pytest

from backbones.dataset.place import MAX_BYTES, BadImageError, Place, read_bytes
from backbones.errors import UserError


def test_a_whole_file_or_a_part_of_an_archive_is_read(tmp_path: Path) -> None:
    for name, offset, expected in (("a.jpg", 0, b"abcdef"), ("a.tar", 2, b"cd"), ("a.TAR", 0, b"a")):
        (tmp_path / name).write_bytes(b"abcdef")
        assert read_bytes(Place(str(tmp_path / name), offset, len(expected))) == expected


def test_only_the_place_in_an_archive_is_described_with_its_offset() -> None:
    assert str(Place("/data/a.jpg", 0, 10)) == "/data/a.jpg"
    assert str(Place("/data/a.tar", 512, 10)) == "/data/a.tar at byte 512"


@pytest.mark.parametrize("length", [5, 7])
def test_a_file_whose_length_is_not_the_indexed_one_is_bad(tmp_path: Path, length: int) -> None:
    (tmp_path / "a.jpg").write_bytes(b"abcdef")
    with pytest.raises(BadImageError, match=f"no longer has the {length} bytes"):
        read_bytes(Place(str(tmp_path / "a.jpg"), 0, length))


def test_a_missing_file_is_bad(tmp_path: Path) -> None:
    with pytest.raises(BadImageError, match="no such file"):
        read_bytes(Place(str(tmp_path / "a.jpg"), 0, 10))


@pytest.mark.parametrize("number", [errno.EIO, errno.EMFILE, errno.ESTALE])
def test_a_failure_of_the_machine_makes_no_image_bad(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def fail(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("os.open", fail)
    with pytest.raises(UserError, match=r"a\.jpg cannot be read at the moment: \w"):
        read_bytes(Place("a.jpg", 0, 10))


def test_a_file_over_32_megabytes_is_refused_unread(tmp_path: Path) -> None:
    file = tmp_path / "large.jpg"
    file.touch()
    os.truncate(file, MAX_BYTES + 1)
    with pytest.raises(BadImageError, match="33554433 bytes, more than 32 MB"):
        read_bytes(Place(str(file), 0, MAX_BYTES + 1))
