"""Tests of a prepared index: it is refused when its archives have changed."""

import os
import shutil
from pathlib import Path

import pytest

from backbones.commands import prepare
from backbones.dataset.splits import train_and_val, validation
from backbones.errors import UserError
from tests.dataset.make_sources import write_sources

CHANGED = "has changed since the index was written: prepare it anew"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards in `in` with an index in `out`, the same written smaller in `small`, images of a folder in `plain`."""
    root = tmp_path_factory.mktemp("made")
    sources = write_sources(root / "sources")
    shutil.copytree(sources["webdataset"], root / "in")
    for source, out, words in ((root / "in", "out", []), (root / "in", "small", ["--resize", "45"])):
        prepare.main([str(source), "--out", str(root / out), "--workers", "1", *words])
    return root


@pytest.fixture
def shard(made: Path):
    """A training shard that a test may change: it is restored, with its times, afterwards."""
    file = made / "in" / "imagenet1k-train-0001.tar"
    content, status = file.read_bytes(), file.stat()
    yield file
    file.write_bytes(content)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_unchanged_archives_are_accepted(made: Path) -> None:
    assert len(train_and_val(made / "out")[0]) == 24


def test_an_archive_of_another_length_is_refused_by_its_path(made: Path, shard: Path) -> None:
    status = shard.stat()
    shard.write_bytes(shard.read_bytes() + bytes(512))
    os.utime(shard, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(UserError, match=f"^{shard} {CHANGED}"):
        train_and_val(made / "out")


def test_an_archive_that_was_written_later_is_refused(made: Path, shard: Path) -> None:
    status = shard.stat()
    os.utime(shard, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    with pytest.raises(UserError, match=CHANGED):
        train_and_val(made / "out")


def test_an_archive_that_is_gone_is_refused(made: Path, shard: Path) -> None:
    shard.unlink()
    with pytest.raises(UserError, match=CHANGED):
        train_and_val(made / "out")


def test_validation_alone_does_not_look_at_the_training_archives(made: Path, shard: Path) -> None:
    shard.unlink()
    assert len(validation(made / "out")) == 12


def test_shards_in_the_folder_itself_may_be_copied_with_it(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "small", tmp_path / "copy", copy_function=shutil.copyfile)
    assert len(train_and_val(tmp_path / "copy")[0]) == 24


def test_a_shard_in_the_folder_itself_that_was_cut_is_refused(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "small", tmp_path / "copy")
    os.truncate(tmp_path / "copy" / "val-000000.tar", 5000)
    with pytest.raises(UserError, match=rf"val-000000\.tar {CHANGED}"):
        train_and_val(tmp_path / "copy")


def test_images_that_are_not_there_any_more_are_missed_at_once(tmp_path: Path) -> None:
    images = tmp_path / "images"
    write_sources(images)
    prepare.main([str(images / "folder"), "--out", str(tmp_path / "index"), "--workers", "1"])
    images.rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"are in .*images/folder/train, which does not exist"):
        train_and_val(tmp_path / "index")


def test_an_archive_whose_ending_is_in_upper_case_is_watched_too(made: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(made / "in", tmp_path / "in"))
    changed = (data / "imagenet1k-train-0001.tar").rename(data / "imagenet1k-train-0001.TAR")
    prepare.main([str(data), "--out", str(tmp_path / "out"), "--workers", "1"])
    assert len(train_and_val(tmp_path / "out")[0]) == 24
    changed.write_bytes(changed.read_bytes() + bytes(10_240))
    with pytest.raises(UserError, match=f"{changed.name} {CHANGED}"):
        train_and_val(tmp_path / "out")
