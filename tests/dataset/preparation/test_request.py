"""A request refuses folders that are not its own, before any work."""

from pathlib import Path

import pytest

from backbones.dataset.preparation.request import Request
from backbones.errors import UserError


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for split in ("train", "val"):
        (tmp_path / "data" / split / "cat").mkdir(parents=True)
    return tmp_path / "data"


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("data", "is the data set itself"),
        ("data/train/new", "is among the class folders"),
        ("file", "is a file"),
        ("other", "holds files that `prepare` did not write"),
        ("file/below", "cannot be written"),
    ],
)
def test_a_folder_for_something_else_is_refused(source: Path, tmp_path: Path, out: str, message: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").touch()
    with pytest.raises(UserError, match=message):
        Request(str(source), str(tmp_path / out)).require_own_folder()


@pytest.mark.parametrize("names", [[], [".lock"], ["prepare.json", "train-000000.tar"], ["prepare.json.1a2b.partial"]])
def test_a_new_folder_or_one_of_prepare_is_taken(source: Path, tmp_path: Path, names: list[str]) -> None:
    (tmp_path / "out").mkdir()
    for name in names:
        (tmp_path / "out" / name).touch()
    Request(str(source), str(tmp_path / "out")).require_own_folder()


def test_a_path_below_the_home_folder_is_written_out(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    assert Request(str(source), "~/index").folder == Path("/home/somebody/index")


def test_a_layout_other_than_shards_contradicts_names_of_shards() -> None:
    with pytest.raises(UserError, match="layout"):
        Request("data", "out", class_names="imagenet", layout="folders")
    assert Request("data", "out", class_names="imagenet", layout="shards").layout == "shards"
