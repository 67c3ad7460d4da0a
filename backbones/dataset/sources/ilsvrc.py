"""The official archives of ILSVRC2012, read in place: a tar of one tar for each class, and a flat tar."""

from concurrent.futures import Executor
from functools import partial
from pathlib import Path, PurePosixPath

from backbones.dataset.index import SUFFIXES, Index, Row, Split, make_index, some
from backbones.dataset.sources.ground_truth import DEVKIT, SOLUTION, Unlabelled, find_ground_truth, label
from backbones.dataset.sources.tar import Member, members
from backbones.dataset.workers import spread
from backbones.errors import UserError

ARCHIVES: dict[Split, str] = {"train": "ILSVRC2012_img_train.tar", "val": "ILSVRC2012_img_val.tar"}

SHAPE = f"{ARCHIVES['train']}, {ARCHIVES['val']} and {DEVKIT}.tar.gz (image-net.org)"


def found(root: Path) -> bool:
    """Tell whether one of the two archives is there."""
    return any((root / name).is_file() for name in ARCHIVES.values())


def scan(root: Path, split: Split, executor: Executor | None = None) -> Index:
    """Return the images of one split."""
    file = root / ARCHIVES[split]
    if not file.is_file():
        raise UserError(f"{root} has no {file.name}.\nExpected {SHAPE}.")
    return _train(file, executor) if split == "train" else _val(file)


def _train(file: Path, executor: Executor | None) -> Index:
    archives = _class_archives(file)
    if not archives:
        raise UserError(f"{file} holds no archives nXXXXXXXX.tar, one for each class.\nDownload it again.")
    classes = tuple(sorted(archives))
    found = spread(partial(_images, file), [archives[name] for name in classes], executor)
    if empty := [name for name, images in zip(classes, found, strict=True) if not images]:
        raise UserError(f"{file} has classes without images: {some(empty)}.\nDownload it again.")
    rows = (
        Row(k, f"{classes[k]}/{PurePosixPath(image.name).name}", file.name, image.offset, image.length)
        for k, images in enumerate(found)
        for image in images
    )
    return make_index(file.parent, classes, rows)


def _class_archives(file: Path) -> dict[str, Member]:
    """Return the archive of each class by WNID."""
    archives: dict[str, Member] = {}
    for each in members(file):
        wnid, ending = PurePosixPath(each.name).stem, PurePosixPath(each.name).suffix
        if ending.lower() == ".tar" and archives.setdefault(wnid, each) is not each:
            raise UserError(f"{file} holds two archives of one class: {archives[wnid].name} and {each.name}.")
    return archives


def _val(file: Path) -> Index:
    truth = find_ground_truth([file.parent])
    if truth is None:
        raise UserError(
            f"{file} has images without labels.\n"
            f"Put {DEVKIT}.tar.gz (image-net.org) or {SOLUTION} (Kaggle) into {file.parent}."
        )
    images = (
        Unlabelled(PurePosixPath(image.name).name, file.name, image.offset, image.length) for image in _images(file)
    )
    classes, rows = label(truth, images, file)
    return make_index(file.parent, classes, rows)


def _images(file: Path, inside: Member | None = None) -> list[Member]:
    found = members(file, inside)
    return [member for member in found if is_image(member.name)]


def is_image(name: str) -> bool:
    """Tell whether a member is an image by the ending of its name; a name that begins with a dot is none."""
    last = PurePosixPath(name).name
    return last.rpartition(".")[2].lower() in SUFFIXES and not last.startswith(".")
