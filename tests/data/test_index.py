"""Tests of the index: what is found, in which order, and which data sets are refused."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from torchvision.datasets import ImageFolder

from backbones.data.index import scan_folder, train_and_val, validation
from backbones.errors import UserError


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    names = [f"{split}/{name}/{i}.jpg" for split in ("train", "val") for name in ("cat", "dog") for i in range(2)]
    return touch(tmp_path, *names)


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        train_and_val(path)
    message = str(caught.value)
    assert len(message.splitlines()) <= 2
    return message


def test_files_are_found_below_classes_sorted_and_labelled(tmp_path: Path) -> None:
    root = touch(
        tmp_path, "b/2.jpg", "b/deep/er/1.PNG", "a/9.JPEG", "a/10.jpg", "a/notes.txt", "a/._9.jpg", "loose.jpg"
    )
    index = scan_folder(root)
    assert index.classes == ("a", "b")
    assert index.files == ("a/10.jpg", "a/9.JPEG", "b/2.jpg", "b/deep/er/1.PNG")
    assert index.labels.tolist() == [0, 0, 1, 1]
    assert index.labels.dtype == np.int64
    assert len(index) == 4
    assert index.path(3) == f"{root}/b/deep/er/1.PNG"


def test_it_agrees_with_image_folder(split) -> None:
    theirs = ImageFolder(str(split.root))
    assert list(split.classes) == theirs.classes
    assert [(split.path(row), split.labels[row]) for row in range(len(split))] == theirs.samples


def test_links_that_lead_back_are_not_walked(tmp_path: Path) -> None:
    root = touch(tmp_path / "root", "a/1.jpg", "b/1.jpg")
    (root / "loop").symlink_to(root)
    (root / "up").symlink_to(tmp_path)
    (root / "a" / "deep").symlink_to(root)
    assert scan_folder(root).files == ("a/1.jpg", "b/1.jpg")


def test_a_class_folder_and_a_file_may_be_links(tmp_path: Path) -> None:
    store = touch(tmp_path / "store", "x/1.jpg", "file.jpg")
    root = touch(tmp_path / "root", "a/1.jpg")
    (root / "b").symlink_to(store / "x")
    (root / "a" / "2.jpg").symlink_to(store / "file.jpg")
    assert scan_folder(root).files == ("a/1.jpg", "a/2.jpg", "b/1.jpg")


def test_the_fingerprint_depends_on_names_not_on_the_place(tree: Path, tmp_path: Path) -> None:
    before = scan_folder(tree / "train").fingerprint
    shutil.copytree(tree / "train", tmp_path / "elsewhere")
    assert scan_folder(tmp_path / "elsewhere").fingerprint == before
    (tree / "train" / "cat" / "0.jpg").rename(tree / "train" / "dog" / "9.jpg")
    assert scan_folder(tree / "train").fingerprint != before


def test_file_names_need_not_be_utf8(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/a/\xff.jpg")).touch()
    assert len(scan_folder(tmp_path)) == 1


@pytest.mark.parametrize("name", ["val", "validation"])
def test_both_names_of_the_validation_folder_are_known(tree: Path, name: str) -> None:
    (tree / "val").rename(tree / name)
    train, val = train_and_val(tree)
    assert len(train) == len(val) == 4
    assert validation(tree).fingerprint == val.fingerprint


def test_validation_alone_needs_no_training_images(tree: Path) -> None:
    shutil.rmtree(tree / "train")
    assert len(validation(tree)) == 4


def test_a_missing_data_folder_is_refused(tmp_path: Path) -> None:
    assert "nowhere" in refusal(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["train", "val"])
def test_a_missing_split_is_refused(tree: Path, name: str) -> None:
    shutil.rmtree(tree / name)
    assert f"no folder '{name}'" in refusal(tree)


def test_a_class_without_images_is_refused_by_name(tree: Path) -> None:
    for path in (tree / "train" / "dog").iterdir():
        path.unlink()
    assert "classes without images: dog" in refusal(tree)


def test_classes_that_differ_are_named(tree: Path) -> None:
    touch(tree, "train/ant/1.jpg", "val/bee/1.jpg")
    message = refusal(tree)
    assert f"only in {tree / 'train'}: ant;" in message
    assert f"only in {tree / 'val'}: bee." in message


@pytest.mark.parametrize("empty", [[], ["cat", "dog"]])
def test_a_split_without_images_is_refused(tree: Path, empty: list[str]) -> None:
    shutil.rmtree(tree / "train")
    for name in ["", *empty]:
        (tree / "train" / name).mkdir()
    assert "CLASS" in refusal(tree)


def test_dali_is_not_imported_by_anything_but_the_pipeline() -> None:
    modules = ["crop", "digits", "feed", "index", "loader", "mixing", "order", "reference", "synthetic"]
    code = "import sys\n" + "".join(f"import backbones.data.{name}\n" for name in modules)
    code += "assert not any(name.startswith('nvidia.dali') for name in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
