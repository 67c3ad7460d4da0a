"""Tests of the classes of validation images: the devkit, Kaggle's table, and errors in either."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torchvision.datasets.imagenet

from backbones.dataset.index import Row
from backbones.dataset.sources.ground_truth import (
    GroundTruth,
    Unlabelled,
    find_ground_truth,
    label,
    read_devkit,
    read_solution,
)
from backbones.errors import UserError
from tests.dataset.make_sources import Images, devkit, pack, write

DEVKIT = "ILSVRC2012_devkit_t12.tar.gz"
TRUTH = GroundTruth(Path("table.csv"), {"val_1": "n2", "val_2": "n1", "val_3": "n2"})


def refusal(read: Callable[[Path], GroundTruth], file: Path) -> str:
    with pytest.raises(UserError) as caught:
        read(file)
    return str(caught.value)


def images_of(*names: str) -> list[Unlabelled]:
    return [Unlabelled(name, "val.tar", 512 * number, 9) for number, name in enumerate(names)]


def replaced_devkit(folder: Path, images: Images, **changes: bytes | None) -> Path:
    files = {name: changes.get(Path(name).stem, content) for name, content in devkit(images).items()}
    kept = {name: content for name, content in files.items() if content is not None}
    return write(folder / DEVKIT, pack(kept, mode="w:gz"))


def edited_table(kaggle: Path, pattern: str, replacement: str) -> Path:
    table = kaggle / "LOC_val_solution.csv"
    text, count = re.subn(pattern, replacement, table.read_text())
    assert count
    table.write_text(text)
    return table


def test_both_sources_give_each_image_the_class_it_was_made_for(kaggle: Path, ilsvrc: Path, images: Images) -> None:
    expected = {Path(name).stem: name.split("/")[0] for name in images["val"]}
    assert read_solution(kaggle / "LOC_val_solution.csv").classes == expected
    assert read_devkit(ilsvrc / DEVKIT).classes == expected


def test_the_devkit_comes_before_the_table_and_without_either_there_is_nothing(kaggle: Path, ilsvrc: Path) -> None:
    found = [find_ground_truth(folders) for folders in ([kaggle, ilsvrc], [kaggle], [])]
    assert [truth and truth.file.name for truth in found] == [DEVKIT, "LOC_val_solution.csv", None]


def test_images_become_rows_of_the_sorted_classes() -> None:
    classes, rows = label(TRUTH, images_of("val_3.JPEG", "val_1.jpg", "val_2.JPEG"), Path("val"))
    assert classes == ("n1", "n2")
    assert rows == [
        Row(1, "n2/val_3.JPEG", "val.tar", 0, 9),
        Row(1, "n2/val_1.jpg", "val.tar", 512, 9),
        Row(0, "n1/val_2.JPEG", "val.tar", 1024, 9),
    ]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["val_1.jpg", "val_2.jpg", "val_3.jpg", "val_4.jpg"], "does not tell the class of val_4 in val"),
        (["val_1.jpg", "val_3.jpg"], "val lacks 1 images that table.csv names: val_2"),
        (["val_1.jpg", "val_1.JPEG"], "same name: val_1.JPEG (val.tar, byte 512) and val_1.jpg (val.tar, byte 0)"),
    ],
)
def test_images_that_do_not_fit_the_ground_truth_are_refused(names: list[str], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        label(TRUTH, images_of(*names), Path("val"))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torchvision unpacks without a filter
def test_torchvision_reads_the_same_classes_from_the_devkit(ilsvrc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchvision.datasets.imagenet, "_verify_archive", lambda *_: None)
    torchvision.datasets.imagenet.parse_devkit_archive(ilsvrc)
    _, wnids = torch.load(ilsvrc / "meta.bin", weights_only=True)
    assert list(read_devkit(ilsvrc / DEVKIT).classes.values()) == wnids


def test_an_id_that_is_a_synset_with_children_is_refused_by_line(tmp_path: Path, images: Images) -> None:
    file = replaced_devkit(tmp_path, images, ILSVRC2012_validation_ground_truth=b"1\n2\n5\n")
    assert "line 3: '5' is no class" in refusal(read_devkit, file)


@pytest.mark.parametrize("meta", [b"", b"not a mat file" * 50, None])
def test_a_devkit_without_a_sound_meta_mat_is_refused(tmp_path: Path, images: Images, meta: bytes | None) -> None:
    assert "meta.mat" in refusal(read_devkit, replaced_devkit(tmp_path, images, meta=meta))


def test_a_truncated_devkit_is_refused_by_name(ilsvrc: Path) -> None:
    (ilsvrc / DEVKIT).write_bytes((ilsvrc / DEVKIT).read_bytes()[:500])
    assert f"{DEVKIT} cannot be read" in refusal(read_devkit, ilsvrc / DEVKIT)


def test_a_line_without_a_class_is_refused_by_number(kaggle: Path) -> None:
    table = edited_table(kaggle, "(_00000012),n.*", r"\1,")
    assert "line 2: the image or its class is missing" in refusal(read_solution, table)


def test_a_line_that_contradicts_another_is_refused(kaggle: Path) -> None:
    table = edited_table(kaggle, r"\Z", "ILSVRC2012_val_00000003,n02094433\n")
    assert "ILSVRC2012_val_00000003 has two classes" in refusal(read_solution, table)


def test_another_table_is_refused(kaggle: Path) -> None:
    table = edited_table(kaggle, "PredictionString", "Labels")
    assert "no columns ImageId and PredictionString" in refusal(read_solution, table)


@pytest.mark.parametrize("line", [2, 8])
def test_a_field_that_is_too_long_is_refused_by_line(kaggle: Path, line: int) -> None:
    table = kaggle / "LOC_val_solution.csv"
    lines = table.read_text().splitlines(keepends=True)
    lines[line - 1] = "x" * 200_000 + "\n"
    table.write_text("".join(lines))
    assert f"LOC_val_solution.csv, line {line}: field larger" in refusal(read_solution, table)


def test_a_header_that_is_too_long_is_refused_as_the_first_line(kaggle: Path) -> None:
    (kaggle / "LOC_val_solution.csv").write_bytes(b"\0" * 200_000)
    assert "LOC_val_solution.csv, line 1: field larger" in refusal(read_solution, kaggle / "LOC_val_solution.csv")
