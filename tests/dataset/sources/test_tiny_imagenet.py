"""Tests of Tiny-ImageNet as it is downloaded: labels come from its table, and a table that does not fit is refused."""

from pathlib import Path

import pytest

from backbones.dataset.place import read_bytes
from backbones.dataset.splits import train_and_val, validation
from backbones.errors import UserError
from tests.dataset.make_sources import write

CLASS_OF = {"val_0.JPEG": "n03", "val_1.JPEG": "n01", "val_2.JPEG": "n02", "val_10.JPEG": "n01", "val_3.JPEG": "n03"}


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """Three classes with two training images each; files that are not read say so when they are."""
    root = tmp_path / "tiny-imagenet-200"
    for wnid in ("n01", "n02", "n03"):
        for number in range(2):
            write(root / "train" / wnid / "images" / f"{wnid}_{number}.JPEG", f"{wnid} {number}".encode())
        write(root / "train" / wnid / f"{wnid}_boxes.txt", b"")
    for name in CLASS_OF:
        write(root / "val" / "images" / name, name.encode())
    write_table(root, CLASS_OF.items())
    write(root / "wnids.txt", b"n03\nn01\nn02\n")
    write(root / "test" / "images" / "test_0.JPEG", b"unlabelled")
    return root


def write_table(root: Path, rows) -> None:
    write(
        root / "val" / "val_annotations.txt", "".join(f"{name}\t{wnid}\t0\t1\t2\t3\n" for name, wnid in rows).encode()
    )


def refusal(root: Path) -> str:
    with pytest.raises(UserError) as caught:
        validation(root)
    return str(caught.value)


def test_both_splits_are_read_with_the_labels_of_the_table(tiny: Path) -> None:
    train, val = train_and_val(tiny)
    assert train.classes == val.classes == ("n01", "n02", "n03")
    assert list(train.names)[:3] == ["n01/images/n01_0.JPEG", "n01/images/n01_1.JPEG", "n02/images/n02_0.JPEG"]
    found = {read_bytes(val.place(row)).decode(): val.classes[val.labels[row]] for row in range(len(val))}
    assert found == CLASS_OF


def test_the_images_may_be_beside_their_table(tiny: Path) -> None:
    before = validation(tiny).fingerprint
    for path in (tiny / "val" / "images").iterdir():
        path.rename(tiny / "val" / path.name)
    (tiny / "val" / "images").rmdir()
    assert validation(tiny).fingerprint == before


def test_validation_images_that_were_sorted_into_classes_are_class_folders(tiny: Path) -> None:
    for name, wnid in CLASS_OF.items():
        (tiny / "val" / wnid).mkdir(exist_ok=True)
        (tiny / "val" / "images" / name).rename(tiny / "val" / wnid / name)
    (tiny / "val" / "images").rmdir()
    assert list(validation(tiny).names) == sorted(f"{wnid}/{name}" for name, wnid in CLASS_OF.items())


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([*CLASS_OF.items(), ("val_0.JPEG", "n01")], "val_annotations.txt, line 6: val_0.JPEG is named twice"),
        ([*CLASS_OF.items(), ("val_7.JPEG", "n01")], "lacks 1 images"),
        (list(CLASS_OF.items())[1:], "does not tell the class of val_0"),
        (
            [("val_0.JPEG", ""), *list(CLASS_OF.items())[1:]],
            "line 1: expected the name of an image, a tab and its class",
        ),
    ],
)
def test_a_table_that_does_not_fit_is_refused_with_the_culprit(tiny: Path, rows, reason: str) -> None:
    write_table(tiny, rows)
    assert reason in refusal(tiny)


def test_a_class_without_training_images_is_named(tiny: Path) -> None:
    write_table(tiny, (CLASS_OF | {"val_0.JPEG": "n04"}).items())
    with pytest.raises(UserError, match=r"only for validation in .*: n04\."):
        train_and_val(tiny)
