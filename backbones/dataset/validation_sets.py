"""Validation sets other than the checkpoint's own: their images, the outputs that compete, and the right ones.

Classes are matched by the names in the checkpoint, so a network of few classes is measured like one of 1000.
"""

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch
from timm.data.imagenet_info import ImageNetInfo
from torch import Tensor

from backbones.dataset.class_names import describe_twins, show_some
from backbones.dataset.class_order import numeric_order
from backbones.dataset.index import Index, fingerprint, some, without_ending
from backbones.dataset.sources.folder import scan_folder
from backbones.errors import UserError

IMAGENET_CLASSES = 1000


@dataclass(frozen=True)
class Layout:
    """Folders in the archive of a validation set."""

    title: str
    numbered: bool = False
    """Class folders are named 0, 1, 2, ..., positions in the sorted class names, or in the order of their numbers;
    otherwise by class names."""
    below: str | None = None
    """Optional folder between the given one and the class folders."""


LAYOUTS = {
    "v2": Layout("ImageNet-V2", numbered=True),
    "a": Layout("ImageNet-A"),
    "r": Layout("ImageNet-R"),
    "sketch": Layout("ImageNet-Sketch", below="sketch"),
}
"""Recht et al. 2019; Hendrycks et al. 2021, twice; Wang et al. 2019. A and R have folders for 200 of the 1000 classes,
and their authors let only these compete."""


@dataclass(frozen=True, eq=False)
class ValidationSet:
    """Images of a set, and the rule to judge a network's logits on them."""

    title: str
    index: Index
    outputs: tuple[int, ...]
    """Outputs of the network that compete."""
    right: tuple[tuple[int, ...], ...] | None = None
    """Right outputs for each label of the index, where all compete. None: for label k only the k-th that competes."""

    @property
    def has_loss(self) -> bool:
        """True when cross-entropy is defined: each image has one right output."""
        return self.right is None

    def judge(self, device: torch.device) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Return the function that turns (logits, labels) into the logits that compete and the right one of each."""
        outputs = torch.tensor(self.outputs, device=device)
        if self.right is None:
            return partial(select_outputs, outputs=outputs)
        table = torch.zeros(len(self.right), len(self.outputs), dtype=torch.bool)
        for label, right in enumerate(self.right):
            table[label, list(right)] = True
        return partial(choose_best_right, right=table.to(device))


def select_outputs(logits: Tensor, labels: Tensor, *, outputs: Tensor) -> tuple[Tensor, Tensor]:
    """Return the logits of ``outputs`` only; labels are positions among these.

    Shape: logits (N, K), labels (N,), outputs (M,) -> (N, M), (N,).
    """
    return logits[:, outputs], labels


def choose_best_right(logits: Tensor, labels: Tensor, *, right: Tensor) -> tuple[Tensor, Tensor]:
    """Return the logits, and for each image the right output with the highest logit.

    That output is among the k highest exactly if any right output is.

    Shape: logits (N, K), labels (N,), right (labels, K) bool -> (N, K), (N,).
    """
    return logits, logits.masked_fill(~right[labels], -torch.inf).argmax(dim=1)


def own_set(index: Index, classes: Sequence[str] | None = None) -> ValidationSet:
    """Return the validation set with exactly the ``classes`` of the outputs; None: in the order of the index."""
    output = {name: number for number, name in enumerate(classes or index.classes)}
    return ValidationSet("validation", index, tuple(output[name] for name in index.classes))


def folder_set(option: str, folder: str, classes: Sequence[str]) -> ValidationSet:
    """Return the set of ``--option folder`` for a network with ``classes``; only the classes of the folder compete.

    Raises UserError where the folder is missing, or has classes that the network lacks.
    """
    layout, root = LAYOUTS[option], Path(folder).expanduser()
    if not root.is_dir():
        raise UserError(f"--{option} {folder}: there is no such folder.")
    if layout.below is not None and (root / layout.below).is_dir():
        root = root / layout.below
    index = scan_folder(root)
    if layout.numbered:
        index = _rename_classes(index, f"--{option} {folder}", _order_classes(option, classes))
    unknown = sorted(set(index.classes) - set(classes))
    if unknown:
        alike = describe_twins(unknown, classes)
        raise UserError(
            f"--{option} {folder} has classes that the checkpoint lacks: {show_some(unknown)}.{alike}\n"
            "Name the folder that directly holds the class folders; they are named like its classes."
        )
    output = {name: number for number, name in enumerate(classes)}
    return ValidationSet(layout.title, index, tuple(output[name] for name in index.classes))


def _order_classes(option: str, classes: Sequence[str]) -> Sequence[str]:
    """Return the classes that the numbers of a set count. Raises UserError for ImageNet's classes in other words."""
    order = numeric_order(classes)
    if order is None and len(classes) == IMAGENET_CLASSES:
        raise UserError(
            f"--{option} numbers its folders in the order of ImageNet's synsets (n01440764, ...); the checkpoint has "
            f"other names: {show_some(classes)}.\nTheir sorted order is another one: nothing says which class is 0."
        )
    return order or sorted(classes)


def _rename_classes(index: Index, what: str, classes: Sequence[str]) -> Index:
    """Return ``index`` with class names in place of 0, 1, 2, ...; sorted as texts, "10" comes before "2"."""
    if len(index.classes) != len(classes):
        raise UserError(f"{what} has {len(index.classes)} class folders, the checkpoint has {len(classes)} classes.")
    odd = sorted(set(index.classes) - set(map(str, range(len(classes)))))
    if odd:
        raise UserError(f"{what} must have folders named 0 to {len(classes) - 1}; it has {some(odd)}.")
    return _relabel(index, classes, np.array([int(name) for name in index.classes])[index.labels])


def real_set(index: Index, classes: Sequence[str]) -> ValidationSet:
    """Return the ImageNet validation images with the labels of ImageNet-ReaL (Beyer et al. 2020).

    Any of an image's labels is right. Images without a label that is a class of the network are left out. Raises
    UserError unless ``classes`` are ImageNet synsets and the files have ImageNet's names.
    """
    right = right_outputs(image_numbers(index), real_labels(), classes)
    rows = np.array([row for row, outputs in enumerate(right) if outputs], dtype=np.int64)
    if not len(rows):
        raise UserError(f"--real: ImageNet-ReaL has no labels for the images in {index.root}.")
    distinct = sorted(set(right) - {()})
    number = {outputs: label for label, outputs in enumerate(distinct)}
    labels = np.array([number[right[row]] for row in rows], dtype=np.int64)
    names = [" ".join(classes[output] for output in outputs) for outputs in distinct]
    labelled = _relabel(index.take(rows), names, labels)
    return ValidationSet("ImageNet-ReaL", labelled, tuple(range(len(classes))), tuple(distinct))


def real_labels() -> list[list[int]]:
    """Return the labels of each ImageNet validation image in order: positions in the sorted synsets."""
    file = files("timm.data") / "_info" / "imagenet_real_labels.json"
    return json.loads(file.read_text(encoding="utf-8"))


def image_numbers(index: Index) -> list[int]:
    """Return the number of each image, counted from 1: 293 for CLASS/ILSVRC2012_val_00000293.JPEG."""
    matches = [re.search(r"(?:^|/)ILSVRC2012_val_(\d{8})$", without_ending(name)) for name in index.names]
    odd = [name for name, match in zip(index.names, matches, strict=True) if not match]
    if odd:
        raise UserError(
            f"--real needs ImageNet's validation images, named ILSVRC2012_val_00000001.JPEG and so on; "
            f"{index.root} has {some(odd)}."
        )
    return [int(match[1]) for match in matches if match]


def right_outputs(
    images: Iterable[int], labels: Sequence[Sequence[int]], classes: Sequence[str]
) -> list[tuple[int, ...]]:
    """Return the right outputs of each image (a number from 1 on), ascending; there may be none."""
    synsets = ImageNetInfo("imagenet-1k").label_names()
    unknown = sorted(set(classes) - set(synsets))
    if unknown:
        raise UserError(f"--real needs a checkpoint whose classes are ImageNet synsets; {some(unknown)} are not.")
    output = {name: number for number, name in enumerate(classes)}
    translated = [tuple(sorted(output[synsets[k]] for k in each if synsets[k] in output)) for each in labels]
    numbers = list(images)
    outside = [str(number) for number in numbers if not 1 <= number <= len(translated)]
    if outside:
        raise UserError(f"--real: ImageNet has validation images 1 to {len(translated)}, not {some(outside)}.")
    return [translated[number - 1] for number in numbers]


def _relabel(index: Index, classes: Sequence[str], labels: np.ndarray) -> Index:
    """Return ``index`` with other classes, its images sorted by their new labels (N,)."""
    order = np.argsort(labels, kind="stable")
    moved, labels = index.take(order), labels[order].astype(np.int64)
    digest = fingerprint(classes, moved.names, moved.lengths, labels)
    return replace(moved, classes=tuple(classes), labels=labels, fingerprint=digest)
