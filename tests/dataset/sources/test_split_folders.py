"""Tests of the folders of the splits: those that are taken, and the names for which the right one is told."""

from pathlib import Path

import pytest

from backbones.dataset.sources.split_folders import describe_similar, find_similar, has_similar, split_folder
from backbones.errors import UserError


def make(root: Path, *folders: str) -> Path:
    for name in folders:
        (root / name).mkdir(parents=True)
    return root


@pytest.mark.parametrize(("split", "name"), [("train", "train"), ("val", "val"), ("val", "validation")])
def test_the_names_of_the_splits_are_taken(tmp_path: Path, split, name: str) -> None:
    assert split_folder(make(tmp_path, "train", name if name != "train" else "val"), split) == tmp_path / name


@pytest.mark.parametrize(
    ("split", "name"),
    [
        ("train", "Train"),
        ("train", "training"),
        ("val", "valid"),
        ("val", "Val"),
        ("val", "VALIDATION"),
        ("val", "dev"),
    ],
)
def test_a_similar_folder_is_named_with_the_command_to_rename_it(tmp_path: Path, split, name: str) -> None:
    make(tmp_path / "my set", name, "other")
    with pytest.raises(UserError) as caught:
        split_folder(tmp_path / "my set", split)
    assert f"It has {name!r}; rename it: `mv '{tmp_path}/my set/{name}' '{tmp_path}/my set/{split}'`." in str(
        caught.value
    )


def test_a_test_folder_is_linked_not_renamed_and_only_without_a_better_one(tmp_path: Path) -> None:
    assert f"`ln -s Test {tmp_path}/val`" in describe_similar(make(tmp_path, "Test"), "val")
    assert f"mv {tmp_path}/Valid" in describe_similar(make(tmp_path, "Valid"), "val")


def test_an_archive_that_was_not_unpacked_is_named(tmp_path: Path) -> None:
    (tmp_path / "ILSVRC2012_img_val.tar").touch()
    assert f"unpack it into {tmp_path}/val" in describe_similar(tmp_path, "val")


def test_other_folders_and_files_are_not_similar(tmp_path: Path) -> None:
    (make(tmp_path, "trains", "evaluate me") / "valid").touch()
    assert [find_similar(tmp_path, split) for split in ("train", "val")] == [None, None]
    assert not has_similar(make(tmp_path, "Train"))
    assert has_similar(make(tmp_path, "Val-Set"))
