"""Tests of the official archives: labels from the devkit or Kaggle's table, and refused archives."""

import shutil
import tarfile
from pathlib import Path

import pytest

from backbones.dataset.index import Split
from backbones.dataset.sources.ilsvrc import fits, scan
from backbones.errors import UserError
from tests.dataset.make_sources import Images, pack, write

DEVKIT = "ILSVRC2012_devkit_t12.tar.gz"


def refusal(root: Path, split: Split = "val") -> str:
    with pytest.raises(UserError) as caught:
        scan(root, split)
    return str(caught.value)


def test_training_images_are_read_where_they_lie_in_the_outer_archive(ilsvrc: Path, images: Images) -> None:
    index = scan(ilsvrc, "train")
    data = (ilsvrc / "ILSVRC2012_img_train.tar").read_bytes()
    found = {index.names[row]: data[(p := index.place(row)).offset :][: p.length] for row in range(len(index))}
    assert found == images["train"]
    assert list(index.files) == ["ILSVRC2012_img_train.tar"]


def test_validation_images_get_the_classes_of_the_devkit(ilsvrc: Path, images: Images) -> None:
    assert list(scan(ilsvrc, "val").names) == sorted(images["val"])


def test_the_unpacked_devkit_does_as_well(ilsvrc: Path, images: Images) -> None:
    with tarfile.open(ilsvrc / DEVKIT) as archive:
        archive.extractall(ilsvrc, filter="data")
    (ilsvrc / DEVKIT).unlink()
    assert list(scan(ilsvrc, "val").names) == sorted(images["val"])


def test_without_the_devkit_the_table_of_kaggle_serves(ilsvrc: Path, kaggle: Path, images: Images) -> None:
    (ilsvrc / DEVKIT).unlink()
    shutil.copy(kaggle / "LOC_val_solution.csv", ilsvrc)
    assert list(scan(ilsvrc, "val").names) == sorted(images["val"])


def test_without_either_the_images_are_refused_as_unlabelled(ilsvrc: Path) -> None:
    (ilsvrc / DEVKIT).unlink()
    message = refusal(ilsvrc)
    assert "without labels" in message
    assert DEVKIT in message
    assert "LOC_val_solution.csv" in message


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_truncated_archive_is_refused_by_name(ilsvrc: Path, split) -> None:
    file = ilsvrc / f"ILSVRC2012_img_{split}.tar"
    file.write_bytes(file.read_bytes()[:-30_000])
    assert f"{file.name} is truncated" in refusal(ilsvrc, split)


def test_a_truncated_archive_of_one_class_is_refused_by_its_name(ilsvrc: Path) -> None:
    whole = pack({"n01440764_1.JPEG": b"x" * 3000})
    write(ilsvrc / "ILSVRC2012_img_train.tar", pack({"n01440764.tar": whole[:2000]}))
    assert "n01440764.tar in " in refusal(ilsvrc, "train")


def test_a_class_without_images_is_named(ilsvrc: Path) -> None:
    one = pack({"n01440764_1.JPEG": b"x"})
    write(ilsvrc / "ILSVRC2012_img_train.tar", pack({"n01440764.tar": one, "n02094433.tar": pack({"a.txt": b""})}))
    assert "classes without images: n02094433" in refusal(ilsvrc, "train")


def test_images_that_were_packed_without_class_archives_are_refused(ilsvrc: Path) -> None:
    write(ilsvrc / "ILSVRC2012_img_train.tar", pack({"n01440764/n01440764_1.JPEG": b"x"}))
    assert "no archives nXXXXXXXX.tar" in refusal(ilsvrc, "train")


@pytest.mark.parametrize("second", ["again/n01440764.tar", "n01440764.TAR"])
def test_two_archives_of_one_class_are_refused_with_both_names(ilsvrc: Path, second: str) -> None:
    contents = {"n01440764.tar": pack({"n01440764_1.JPEG": b"x"}), second: pack({"n01440764_2.JPEG": b"x"})}
    write(ilsvrc / "ILSVRC2012_img_train.tar", pack(contents))
    assert f"two archives of one class: n01440764.tar and {second}." in refusal(ilsvrc, "train")


def test_a_hole_in_the_archive_of_one_class_is_refused_by_its_name(ilsvrc: Path) -> None:
    hole = pack({"n01440764_1.JPEG": b"x", "n01440764_2.JPEG": b"y"})
    write(ilsvrc / "ILSVRC2012_img_train.tar", pack({"n01440764.tar": hole[:1024] + bytes(512) + hole[1536:]}))
    assert "n01440764.tar in " in refusal(ilsvrc, "train")


def test_a_missing_archive_is_named(ilsvrc: Path) -> None:
    (ilsvrc / "ILSVRC2012_img_val.tar").unlink()
    assert "no ILSVRC2012_img_val.tar" in refusal(ilsvrc)


@pytest.mark.parametrize("ending", [".TAR", ".Tar"])
def test_the_ending_of_an_archive_may_be_in_upper_case(ilsvrc: Path, images: Images, ending: str) -> None:
    for split in ("train", "val"):
        old = ilsvrc / f"ILSVRC2012_img_{split}.tar"
        old.rename(old.with_suffix(ending))
    assert fits(ilsvrc)
    for split in ("train", "val"):
        index = scan(ilsvrc, split)
        assert list(index.names) == sorted(images[split])
        assert index.place(0).is_member
