"""Tests of the other validation sets: their labels, the outputs that compete, and the right ones."""

from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
from timm.data.imagenet_info import ImageNetInfo
from timm.data.real_labels import RealLabelsImagenet

from backbones.dataset.index import Index, Row, make_index
from backbones.dataset.validation_sets import (
    ValidationSet,
    choose_best_right,
    folder_set,
    image_numbers,
    own_set,
    real_labels,
    real_set,
    right_outputs,
)
from backbones.errors import UserError
from backbones.training.metrics import topk_correct

SYNSETS = ImageNetInfo("imagenet-1k").label_names()
CPU = torch.device("cpu")


def write_folders(root: Path, names: list[str], *, images: int = 1) -> str:
    """Write class folders of files that are never opened."""
    for name in names:
        (root / name).mkdir(parents=True)
        for number in range(images):
            (root / name / f"{number}.jpg").write_bytes(b"x")
    return str(root)


def imagenet_index(numbers: range, *, ending: str = "JPEG", classes: tuple[str, ...] = ("n01440764",)) -> Index:
    """Validation images as ImageNet names them, spread over ``classes``."""
    labels = [number % len(classes) for number in numbers]
    names = [
        f"{classes[label]}/ILSVRC2012_val_{number:08d}.{ending}" for number, label in zip(numbers, labels, strict=True)
    ]
    return make_index(
        Path("/val"), classes, [Row(label, name, name, 0, 1) for label, name in zip(labels, names, strict=True)]
    )


def random_logits(rows: int, outputs: int) -> torch.Tensor:
    return torch.randn(rows, outputs, generator=torch.Generator().manual_seed(0))


def test_numbered_folders_count_the_sorted_classes_and_are_not_sorted_as_text(tmp_path):
    classes = tuple(f"n{number:08d}" for number in range(12))
    root = write_folders(tmp_path, [str(number) for number in range(12)], images=2)
    found = folder_set("v2", root, classes)
    folder_of = [int(name.split("/")[0]) for name in found.index.names]
    assert sorted(folder_of) == sorted(list(range(12)) * 2)
    assert [found.outputs[label] for label in found.index.labels] == folder_of


def test_numbered_folders_count_classes_of_numbers_by_their_numbers(tmp_path):
    classes = tuple(map(str, range(12)))
    found = folder_set("v2", write_folders(tmp_path, sorted(classes)), classes)
    assert [classes[found.outputs[label]] for label in found.index.labels] == [
        name.split("/")[0] for name in found.index.names
    ]


def test_numbered_folders_do_not_count_a_thousand_words(tmp_path):
    root = write_folders(tmp_path, list(map(str, range(3))))
    with pytest.raises(UserError, match="the checkpoint has other names: tench"):
        folder_set("v2", root, ["tench", *(f"word {number} of" for number in range(998)), "zebra"])


def test_files_of_numbered_folders_stay_with_their_images(tmp_path):
    root = write_folders(tmp_path, [str(number) for number in range(12)])
    index = folder_set("v2", root, [f"n{number:08d}" for number in range(12)]).index
    assert [Path(index.place(row).path).relative_to(root) for row in range(12)] == [Path(n) for n in index.names]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["0", "1", "2"], "has 3 class folders, the checkpoint has 4 classes"),
        (["0", "1", "2", "3", "4"], "has 5 class folders, the checkpoint has 4 classes"),
        (["1", "2", "3", "4"], "must have folders named 0 to 3; it has 4"),
        (["0", "1", "2", "03"], "must have folders named 0 to 3; it has 03"),
    ],
)
def test_numbered_folders_that_are_not_the_classes_are_refused(tmp_path, names, message):
    with pytest.raises(UserError, match=f"--v2 .* {message}"):
        folder_set("v2", write_folders(tmp_path, names), ["a", "b", "c", "d"])


@pytest.mark.parametrize("letter", ["a", "r"])
def test_the_200_classes_of_a_and_r_are_those_of_timm(tmp_path, letter):
    info = files("timm.data") / "_info"
    names = (info / f"imagenet_{letter}_synsets.txt").read_text().split()
    numbers = [int(word) for word in (info / f"imagenet_{letter}_indices.txt").read_text().split()]
    found = folder_set(letter, write_folders(tmp_path, names), SYNSETS)
    assert len(found.outputs) == 200
    assert found.outputs == tuple(sorted(numbers))


@pytest.mark.parametrize("classes", [("a", "b", "c", "d", "e", "f", "g"), ("g", "f", "e", "d", "c", "b", "a")])
def test_only_the_classes_of_the_set_compete(tmp_path, classes):
    found = folder_set("r", write_folders(tmp_path, ["b", "d", "g"], images=20), classes)
    logits, labels = random_logits(60, 7), torch.from_numpy(found.index.labels)
    hits = [
        max("bdg", key=lambda name: row[classes.index(name)]) == image.split("/")[0]
        for row, image in zip(logits.numpy(), found.index.names, strict=True)
    ]
    judged, right = found.judge(CPU)(logits, labels)
    assert judged.shape == (60, 3)
    assert topk_correct(judged, right)[0] == sum(hits)


def test_classes_that_the_checkpoint_does_not_have_are_named(tmp_path):
    with pytest.raises(UserError, match=r"--a .* has classes that the checkpoint lacks: cat, cow\."):
        folder_set("a", write_folders(tmp_path, ["ant", "cow", "cat"]), ["ant", "bee", "dog"])


def test_a_folder_that_is_not_there_is_named():
    with pytest.raises(UserError, match="--r /no/such/folder: there is no such folder"):
        folder_set("r", "/no/such/folder", ["a"])


@pytest.mark.parametrize("below", [".", "sketch"])
def test_sketch_may_lie_in_a_folder_of_its_own(tmp_path, below):
    write_folders(tmp_path / below, ["a", "b"], images=3)
    found = folder_set("sketch", str(tmp_path), ["a", "b"])
    assert found.index.classes == ("a", "b")
    assert len(found.index) == 6


def test_the_own_set_is_judged_by_its_labels():
    index = imagenet_index(range(1, 31), classes=("a", "b", "c"))
    logits, labels = random_logits(30, 3), torch.from_numpy(index.labels)
    judged, right = own_set(index).judge(CPU)(logits, labels)
    assert torch.equal(judged, logits)
    assert torch.equal(right, labels)


def test_the_own_set_follows_the_order_of_the_outputs():
    index = imagenet_index(range(1, 31), classes=("a", "b", "c"))
    logits, labels = random_logits(30, 3), torch.from_numpy(index.labels)
    judged, right = own_set(index, ("c", "a", "b")).judge(CPU)(logits, labels)
    assert torch.equal(judged, torch.stack([logits[:, 1], logits[:, 2], logits[:, 0]], dim=1))
    assert torch.equal(right, labels)


def test_real_gives_the_accuracy_that_timm_computes():
    numbers = range(1, 2001)
    logits = random_logits(len(numbers), 1000)
    for row, labels in enumerate(real_labels()[: len(numbers)]):
        logits[row, labels[row % 3 : row % 3 + 1]] += 3.0  # a network that is right at times
    timm = RealLabelsImagenet([f"ILSVRC2012_val_{number:08d}.JPEG" for number in range(1, 50_001)])
    timm.add_result(logits)
    found = real_set(imagenet_index(numbers, classes=tuple(SYNSETS)), SYNSETS)
    rows = [number - 1 for number in image_numbers(found.index)]
    hits = topk_correct(*found.judge(CPU)(logits[rows], torch.from_numpy(found.index.labels)))
    accuracy = (100 * hits / len(found.index)).tolist()
    assert accuracy == pytest.approx([timm.get_accuracy(1), timm.get_accuracy(5)])
    assert 5 < accuracy[0] < accuracy[1] < 95


def test_real_counts_the_46837_images_of_its_authors():
    assert len(real_set(imagenet_index(range(1, 50_001), classes=tuple(SYNSETS)), SYNSETS).index) == 46_837


def test_images_without_a_label_of_the_checkpoint_are_left_out():
    labels = [[3, 1], [5], [], [1], [2, 5]]
    found = right_outputs([5, 4, 3, 2, 1], labels, [SYNSETS[1], SYNSETS[2], SYNSETS[3]])
    assert found == [(1,), (0,), (), (), (0, 2)]


def test_outputs_are_found_by_name_whatever_their_order():
    assert right_outputs([1], [[3, 1]], [SYNSETS[3], SYNSETS[2], SYNSETS[1]]) == [(0, 2)]


def test_images_of_a_subset_keep_their_own_labels():
    """Image 7 and its neighbours, for a network that has only the labels of image 7 and one more."""
    labels = real_labels()
    wanted = next(number for number in range(1, 1000) if len(labels[number - 1]) == 2)
    classes = sorted({SYNSETS[k] for k in labels[wanted - 1]} | {"n01440764"})
    found = real_set(imagenet_index(range(1, 1001)), classes)
    row = image_numbers(found.index).index(wanted)
    assert found.right is not None
    names = {classes[output] for output in found.right[found.index.labels[row]]}
    assert names == {SYNSETS[k] for k in labels[wanted - 1]}
    assert found.index.names[row].endswith(f"{wanted:08d}.JPEG")


@pytest.mark.parametrize("k", [1, 5])
def test_an_image_is_right_when_any_of_its_labels_is_among_the_k_highest(k):
    logits = random_logits(500, 12)
    right = torch.rand(9, 12, generator=torch.Generator().manual_seed(1)) < 0.2
    right[:, 4] |= ~right.any(dim=1)
    labels = torch.arange(500) % 9
    expected = right[labels].gather(1, logits.topk(k).indices).any(dim=1).sum()
    found = topk_correct(*choose_best_right(logits, labels, right=right), ks=(k,))
    assert found.item() == expected


@pytest.mark.parametrize("ending", ["JPEG", "jpg"])
def test_images_are_numbered_by_their_names_whatever_their_ending(ending):
    assert image_numbers(imagenet_index(range(7, 10), ending=ending)) == [7, 8, 9]


@pytest.mark.parametrize("name", ["000.jpg", "ILSVRC2012_val_0000001.JPEG", "xILSVRC2012_val_00000001.JPEG"])
def test_images_that_are_not_imagenets_are_refused(name):
    index = make_index(Path("/val"), ("c",), [Row(0, f"c/{name}", name, 0, 1)])
    with pytest.raises(UserError, match=rf"--real needs ImageNet's validation images.* /val has c/{name}"):
        image_numbers(index)


@pytest.mark.parametrize("number", [0, 50_001])
def test_a_number_that_imagenet_does_not_have_is_refused(number):
    with pytest.raises(UserError, match=f"ImageNet has validation images 1 to 50000, not {number}"):
        real_set(imagenet_index(range(number, number + 1)), SYNSETS)


def test_a_checkpoint_of_other_classes_has_no_real_labels():
    with pytest.raises(UserError, match="classes are ImageNet synsets; ant, bee are not"):
        real_set(imagenet_index(range(1, 5)), ["ant", "bee", "n01440764"])


def test_images_without_any_label_are_refused_together():
    assert real_labels()[0] == []
    with pytest.raises(UserError, match="has no labels for the images in /val"):
        real_set(imagenet_index(range(1, 2)), SYNSETS)


def test_a_loss_needs_one_right_output():
    index = imagenet_index(range(1, 3))
    assert ValidationSet("one", index, (0,)).has_loss
    assert not ValidationSet("several", index, (0,), ((0,),)).has_loss


def test_images_come_in_the_order_of_their_labels():
    index = real_set(imagenet_index(range(1, 200)), SYNSETS).index
    assert (np.diff(index.labels) >= 0).all()
    assert index.labels.max() == len(index.classes) - 1
