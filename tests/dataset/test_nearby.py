"""Tests of hints: a folder beside the right one gets the path of the right one."""

from pathlib import Path

import pytest

from backbones.dataset.nearby import describe_missing, describe_nearby
from backbones.dataset.splits import train_and_val
from backbones.errors import UserError
from tests.dataset.make_sources import write


def fits(folder: Path) -> bool:
    return (folder / "train").is_dir()


def make(root: Path, *files: str) -> Path:
    for name in files:
        write(root / name, b"x")
    return root


@pytest.mark.parametrize("place", [".", "train", "train/ant", "val", "other"])
def test_a_folder_too_low_gets_the_one_above(tmp_path: Path, place: str) -> None:
    root = make(tmp_path / "set", "train/ant/1.jpg", "val/ant/1.jpg", "other/x.txt") / place
    if place != ".":
        assert describe_nearby(root, fits) == f"\nA data set is near. Give its folder: {tmp_path / 'set'}"


@pytest.mark.parametrize("below", ["a", "a/b", "a/b/c"])
def test_a_folder_too_high_gets_the_one_below(tmp_path: Path, below: str) -> None:
    make(tmp_path, f"{below}/train/ant/1.jpg", ".hidden/train/x", "@eaDir/train/x")
    assert describe_nearby(tmp_path, fits) == f"\nA data set is near. Give its folder: {tmp_path / below}"


def test_a_data_set_behind_a_link_is_found(tmp_path: Path) -> None:
    make(tmp_path, "mount/imagenet/train/ant/1.jpg", "data/readme.txt")
    (tmp_path / "data" / "imagenet").symlink_to(tmp_path / "mount" / "imagenet")
    assert f"{tmp_path}/data/imagenet" in describe_nearby(tmp_path / "data", fits)


def test_several_data_sets_are_all_named(tmp_path: Path) -> None:
    make(tmp_path, "a/train/ant/1.jpg", "b/Train/ant/1.jpg", "b/Valid/ant/1.jpg", "c/x.txt")
    assert f"{tmp_path / 'a'} or {tmp_path / 'b'}" in describe_nearby(tmp_path, fits)


def test_the_search_ends_after_some_folders(tmp_path: Path) -> None:
    make(tmp_path, *(f"{number:03d}/x.txt" for number in range(200)), "z/train/ant/1.jpg")
    assert describe_nearby(tmp_path, fits) == ""


def test_similar_names_get_the_commands_to_rename_them(tmp_path: Path) -> None:
    text = describe_nearby(make(tmp_path, "Train/ant/1.jpg", "valid/ant/1.jpg"), fits)
    assert f"`mv {tmp_path}/Train {tmp_path}/train`" in text
    assert f"`mv {tmp_path}/valid {tmp_path}/val`" in text


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("ant/1.jpg", "folders of images: ant. If these are classes, they belong below"),
        ("1.JPG", "images, but no class folders"),
        ("imagenet.zip", "imagenet.zip, which is not read: unpack it"),
        ("train.parquet", "train.parquet, which is not read: export its images"),
    ],
)
def test_what_is_there_instead_is_said(tmp_path: Path, file: str, said: str) -> None:
    assert said in describe_nearby(make(tmp_path, file), fits)


def test_a_folder_that_may_not_be_read_has_no_hint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Path) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "iterdir", refuse)
    assert describe_nearby(tmp_path, fits) == ""


def test_a_missing_folder_gets_the_similar_one_and_a_file_its_folder(tmp_path: Path) -> None:
    make(tmp_path, "imagenet/train/x", "imagenet/ILSVRC2012_img_val.tar")
    assert describe_missing(tmp_path / "imagnet") == " Did you mean imagenet?"
    assert str(tmp_path / "imagenet") in describe_missing(tmp_path / "imagenet" / "ILSVRC2012_img_val.tar")
    assert describe_missing(tmp_path / "no" / "where") == ""


def test_the_refusal_of_a_data_set_has_the_hint(tmp_path: Path) -> None:
    make(tmp_path, "imagenet/train/ant/1.jpg", "imagenet/val/ant/1.jpg")
    for place in (".", "imagenet/train", "imagenet/val/ant"):
        with pytest.raises(UserError) as caught:
            train_and_val(tmp_path / place)
        assert f"Give its folder: {tmp_path / 'imagenet'}\n" in str(caught.value)
