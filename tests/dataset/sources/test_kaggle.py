"""Tests of Kaggle's layout: its folders, its table and its images."""

import re
import shutil
from pathlib import Path

import pytest

from backbones.dataset.sources.kaggle import fits, scan
from backbones.dataset.splits import train_and_val
from backbones.errors import UserError
from tests.dataset.make_sources import Images

CLS_LOC = "ILSVRC/Data/CLS-LOC"


def refusal(root: Path) -> str:
    with pytest.raises(UserError) as caught:
        scan(root, "val")
    return str(caught.value)


def edit_table(root: Path, pattern: str, replacement: str) -> None:
    table = root / "LOC_val_solution.csv"
    text, count = re.subn(pattern, replacement, table.read_text())
    assert count
    table.write_text(text)


@pytest.mark.parametrize("below", [".", "ILSVRC", "ILSVRC/Data", CLS_LOC])
def test_any_folder_down_to_the_images_may_be_named(kaggle: Path, below: str, images: Images) -> None:
    train, val = train_and_val(kaggle / below)
    assert list(train.names) == sorted(images["train"])
    assert list(val.names) == sorted(images["val"])


@pytest.mark.parametrize("beside", [".", "ILSVRC", CLS_LOC, f"{CLS_LOC}/val"])
def test_the_table_may_lie_in_any_folder_above_the_images(kaggle: Path, beside: str) -> None:
    shutil.move(kaggle / "LOC_val_solution.csv", kaggle / beside / "LOC_val_solution.csv")
    assert len(scan(kaggle / CLS_LOC, "val")) == 12


def test_validation_images_in_class_folders_are_taken_as_they_are(kaggle: Path, images: Images) -> None:
    (kaggle / "LOC_val_solution.csv").unlink()
    for name in images["val"]:
        target = kaggle / CLS_LOC / "val" / name
        target.parent.mkdir(exist_ok=True)
        (kaggle / CLS_LOC / "val" / target.name).rename(target)
    assert list(scan(kaggle, "val").names) == sorted(images["val"])


def test_images_without_a_table_are_refused_with_the_ways_to_get_labels(kaggle: Path) -> None:
    (kaggle / "LOC_val_solution.csv").unlink()
    message = refusal(kaggle)
    assert "unlabelled" in message
    assert "LOC_val_solution.csv" in message
    assert "ILSVRC2012_devkit_t12.tar.gz" in message


def test_a_class_that_training_does_not_have_is_named(kaggle: Path) -> None:
    edit_table(kaggle, "(_00000005),n.*", r"\1,n09999999 1 2 3 4")
    with pytest.raises(UserError, match=r"only for validation in .*: n09999999"):
        train_and_val(kaggle)


def test_a_broken_link_among_flat_images_is_named(kaggle: Path) -> None:
    image = kaggle / CLS_LOC / "val" / "ILSVRC2012_val_00000001.JPEG"
    image.unlink()
    image.symlink_to(kaggle / "nowhere")
    assert f"point nowhere: {image}" in refusal(kaggle)


def test_the_devkit_labels_flat_images_too(kaggle: Path, ilsvrc: Path, images: Images) -> None:
    (kaggle / "LOC_val_solution.csv").unlink()
    shutil.copy(ilsvrc / "ILSVRC2012_devkit_t12.tar.gz", kaggle)
    assert list(scan(kaggle, "val").names) == sorted(images["val"])


def test_an_image_folder_is_not_mistaken_for_it(tmp_path: Path) -> None:
    (tmp_path / "val" / "a").mkdir(parents=True)
    (tmp_path / "val" / "a" / "1.jpg").touch()
    assert not fits(tmp_path)
