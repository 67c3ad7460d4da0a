"""Work is what is missing in the folder of a request."""

import json
import shutil
from pathlib import Path

import pytest

from backbones.dataset.preparation.images import read_images
from backbones.dataset.preparation.request import Request
from backbones.dataset.preparation.work import Work, begin, finish
from backbones.errors import UserError
from tests.dataset.make_sources import write_sources


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    """24 training and 12 validation images."""
    return str(write_sources(tmp_path_factory.mktemp("sources"))["folder"])


def start(source: str, out: Path, **options: int) -> Work:
    request = Request(source, str(out), **options)  # pyright: ignore[reportArgumentType]
    out.mkdir(exist_ok=True)
    return begin(request, read_images(request))


def test_all_images_are_written_and_counted_and_then_nothing_is_left(source: str, tmp_path: Path) -> None:
    work = start(source, tmp_path / "out", resize=45)
    assert (work.is_done, work.removed, work.images) == (False, 0, 36)
    done: list[int] = []
    finish(work, written=done.append)
    assert done == [24, 36]
    again = start(source, tmp_path / "out", resize=45)
    assert (again.is_done, again.images) == (True, 0)


def test_only_a_missing_shard_is_written_again(source: str, tmp_path: Path) -> None:
    finish(start(source, tmp_path / "out", resize=45))
    (tmp_path / "out" / "val-000000.tar").unlink()
    work = start(source, tmp_path / "out", resize=45)
    assert (work.is_done, work.removed, work.images) == (False, 1, 12)


def test_what_a_killed_process_left_is_removed(source: str, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "train-000000.tar.1a2b.partial").write_bytes(b"half")
    start(source, tmp_path / "out", resize=45)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["prepare.json"]


def test_the_folder_of_another_request_is_refused_with_the_difference(source: str, tmp_path: Path) -> None:
    start(source, tmp_path / "out", resize=45)
    assert json.loads((tmp_path / "out" / "prepare.json").read_text())["resize"] == 45
    with pytest.raises(UserError, match="begun in another way: resize was 45, now 44"):
        start(source, tmp_path / "out", resize=44)


def test_a_shard_with_other_images_under_the_right_name_is_not_taken_for_ours(source: str, tmp_path: Path) -> None:
    finish(start(source, tmp_path / "other", resize=45, seed=1, per_class=6))
    work = start(source, tmp_path / "out", resize=45)
    shutil.copy(tmp_path / "other" / "val-000000.tar", tmp_path / "out" / "train-000000.tar")
    with pytest.raises(UserError, match="the shards of train are not those that were written"):
        finish(work)
    assert not (tmp_path / "out" / "train.npz").exists()
