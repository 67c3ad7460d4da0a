"""The official archives of ILSVRC2012, read in place: a tar with a tar per class, and a flat tar."""

from concurrent.futures import Executor
from functools import partial
from pathlib import Path, PurePosixPath

from backbones.dataset.index import SUFFIXES, Index, Row, Split, make_index, some
from backbones.dataset.sources.clutter import is_in_clutter
from backbones.dataset.sources.ground_truth import DEVKIT, SOLUTION, Unlabelled, find_ground_truth, label
from backbones.dataset.sources.tar import Member, members
from backbones.dataset.workers import spread
from backbones.errors import UserError

ARCHIVES: dict[Split, str] = {"train": "ILSVRC2012_img_train.tar", "val": "ILSVRC2012_img_val.tar"}

SHAPE = f"{ARCHIVES['train']}, {ARCHIVES['val']} and {DEVKIT}.tar.gz (image-net.org)"


def fits(root: Path) -> bool:
    """Return whether one of the two archives exists."""
    return any(find_archive(root, split) for split in ARCHIVES)


def find_archive(root: Path, split: Split) -> Path | None:
    """Return the archive of one split, whatever the case of its name; None where there is none."""
    name = ARCHIVES[split]
    if (root / name).is_file():
        return root / name
    return min((path for path in root.iterdir() if path.name.lower() == name.lower() and path.is_file()), default=None)


def scan(root: Path, split: Split, executor: Executor | None = None) -> Index:
    """Return the images of one split."""
    file = find_archive(root, split)
    if file is None:
        raise UserError(f"{root} has no {ARCHIVES[split]}.\nExpected {SHAPE}.")
    return _scan_train(file, executor) if split == "train" else _scan_val(file)


def _scan_train(file: Path, executor: Executor | None) -> Index:
    archives = _find_class_archives(file)
    if not archives:
        raise UserError(f"{file} holds no archives nXXXXXXXX.tar, one for each class.\nDownload it again.")
    classes = tuple(sorted(archives))
    images_of = spread(partial(_list_images, file), [archives[name] for name in classes], executor)
    if empty := [name for name, images in zip(classes, images_of, strict=True) if not images]:
        raise UserError(f"{file} has classes without images: {some(empty)}.\nDownload it again.")
    rows = (
        Row(k, f"{classes[k]}/{PurePosixPath(image.name).name}", file.name, image.offset, image.length)
        for k, images in enumerate(images_of)
        for image in images
    )
    return make_index(file.parent, classes, rows)


def _find_class_archives(file: Path) -> dict[str, Member]:
    """Return the archive of each class, by WNID."""
    archives: dict[str, Member] = {}
    for each in members(file):
        wnid, ending = PurePosixPath(each.name).stem, PurePosixPath(each.name).suffix
        if ending.lower() == ".tar" and archives.setdefault(wnid, each) is not each:
            raise UserError(f"{file} holds two archives of one class: {archives[wnid].name} and {each.name}.")
    return archives


def _scan_val(file: Path) -> Index:
    truth = find_ground_truth([file.parent])
    if truth is None:
        raise UserError(
            f"{file} has images without labels.\n"
            f"Put {DEVKIT}.tar.gz (image-net.org) or {SOLUTION} (Kaggle) into {file.parent}."
        )
    found = _list_images(file)
    images = (Unlabelled(PurePosixPath(each.name).name, file.name, each.offset, each.length) for each in found)
    classes, rows = label(truth, images, file)
    return make_index(file.parent, classes, rows)


def _list_images(file: Path, inside: Member | None = None) -> list[Member]:
    return [member for member in members(file, inside) if is_image(member.name)]


def is_image(name: str) -> bool:
    """Return whether the name of a member is that of an image: not hidden, and in no folder that a system makes."""
    last = PurePosixPath(name).name
    return last.rpartition(".")[2].lower() in SUFFIXES and not last.startswith(".") and not is_in_clutter(name)
