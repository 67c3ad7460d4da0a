"""Shards: which images are in which, under which keys, and what a shard on the disk holds."""

import tarfile
from pathlib import Path

import numpy as np
import pytest

from backbones.dataset.index import Index, Row, make_index
from backbones.dataset.preparation import shards as module
from backbones.dataset.preparation.shards import Shard, create_shards, shard_keys, shard_ranges, write_shard
from backbones.dataset.preparation.shrink import shrink
from backbones.dataset.sources.folder import scan_folder
from backbones.errors import UserError
from tests.dataset.make_sources import Images, write, write_folder


def of_lengths(lengths: list[int]) -> Index:
    return make_index(Path(), ("a",), [Row(0, f"a/{k:05d}", "x", 0, length) for k, length in enumerate(lengths)])


def of_names(*names: str) -> Index:
    return make_index(Path(), ("a", "b"), [Row(0 if name[0] == "a" else 1, name, name, 0, 1) for name in names])


@pytest.fixture
def train(tmp_path: Path, images: Images) -> Index:
    write_folder(tmp_path / "images", images)
    return scan_folder(tmp_path / "images" / "train")


def one_shard(index: Index, folder: Path) -> Shard:
    (shard,) = create_shards(index, folder, "train", short_side=45, quality=80)
    return shard


@pytest.mark.parametrize(
    ("lengths", "sizes"),
    [
        ([1] * 2500, [1000, 1000, 500]),
        ([1] * 2000, [1000, 1000]),
        ([6 * 10**8] * 3, [1, 1, 1]),
        ([5 * 10**8] * 3, [2, 1]),
        ([3 * 10**9, 1, 1], [1, 2]),
        ([], []),
    ],
)
def test_a_shard_has_at_most_1000_images_and_a_gigabyte(lengths: list[int], sizes: list[int]) -> None:
    ranges = shard_ranges(of_lengths(lengths))
    assert [len(rows) for rows in ranges] == sizes
    assert [row for rows in ranges for row in rows] == list(range(len(lengths)))


def test_a_key_is_the_name_without_what_would_end_it() -> None:
    assert shard_keys(of_names("a/x.1.JPEG", "a/deep/y.jpg", "b/x 2.png")) == ["a/deep_y", "a/x_1", "b/x_2"]


def test_two_images_with_one_key_are_refused_with_both_names() -> None:
    with pytest.raises(UserError, match=r"a/x\.jpg and \./a/x\.png would both be a/x"):
        shard_keys(of_names("a/x.png", "a/x.jpg", "b/1.jpg"))


def test_a_shard_holds_each_image_and_its_label(train: Index, images: Images, tmp_path: Path) -> None:
    shard = one_shard(train, tmp_path)
    assert write_shard(shard) == (24, [])
    with tarfile.open(shard.file) as archive:
        found = {member.name: archive.extractfile(member).read() for member in archive}  # pyright: ignore[reportOptionalMemberAccess]
    expected = {}
    for row, name in enumerate(train.names):
        key = name.removesuffix(".JPEG")
        expected[f"{key}.jpg"] = shrink(images["train"][name], 45, 80)
        expected[f"{key}.cls"] = str(train.labels[row]).encode()
    assert found == expected
    assert list(found) == list(expected)


def test_nothing_in_a_shard_tells_when_or_by_whom_it_was_written(train: Index, tmp_path: Path) -> None:
    write_shard(one_shard(train, tmp_path))
    with tarfile.open(tmp_path / "train-000000.tar") as archive:
        kinds = {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode) for m in archive}
    assert kinds == {(0, 0, 0, "", "", 0o644)}


def test_a_shard_that_is_there_is_not_written_again(train: Index, tmp_path: Path) -> None:
    write(tmp_path / "train-000000.tar", b"")
    assert list(create_shards(train, tmp_path, "train", short_side=45, quality=80)) == []


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "empty"), (b"<html>", "not an image"), (None, "cannot be read: No such file or directory")],
)
def test_every_image_that_fails_is_reported_and_no_shard_appears(
    train: Index, tmp_path: Path, content: bytes | None, reason: str
) -> None:
    for row in (3, 20):
        path = Path(train.place(row).path)
        path.unlink() if content is None else path.write_bytes(content)
    train = make_index(train.root, train.classes, [_row(train, row) for row in range(len(train))])
    images, failures = write_shard(one_shard(train, tmp_path))
    assert images == 24
    assert [failure.split(": ", 1)[0] for failure in failures] == [train.place(3).path, train.place(20).path]
    assert all(reason in failure for failure in failures)
    assert [path.name for path in tmp_path.iterdir()] == ["images"]


def test_a_file_that_has_become_shorter_is_reported(train: Index, tmp_path: Path) -> None:
    path = Path(train.place(0).path)
    path.write_bytes(path.read_bytes()[:-1])
    (failure,) = write_shard(one_shard(train, tmp_path)).failures
    assert failure == f"{path}: {train.lengths[0] - 1} bytes are left of {train.lengths[0]}"


def test_an_exception_leaves_nothing_behind(train: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "shrink", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_shard(one_shard(train, tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["images"]


def _row(index: Index, row: int) -> Row:
    path = Path(index.place(row).path)
    length = path.stat().st_size if path.exists() else int(index.lengths[row])
    return Row(int(index.labels[row]), index.names[row], index.names[row], 0, length)


def test_labels_are_numbers_of_numpy_no_more(train: Index, tmp_path: Path) -> None:
    """A shard travels to another process: plain numbers are smaller."""
    assert not any(isinstance(entry.label, np.integer) for entry in one_shard(train, tmp_path).entries)
