"""What is in the data set: a sorted list of files and their labels, found once and checked before anything runs."""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from backbones.errors import UserError

SUFFIXES = frozenset({"jpg", "jpeg", "png", "bmp", "webp", "tif", "tiff", "ppm"})
"""Endings of image files, in any case; the content decides how a file is decoded."""

VALIDATION_FOLDERS = ("val", "validation")


@dataclass(frozen=True, eq=False)
class Index:
    """The images of one split. Label k is the k-th class in sorted order.

    Shape: labels (N,) int64 for N files.
    """

    root: Path
    """Folder that the file names are relative to."""
    classes: tuple[str, ...]
    """Names of the class folders, sorted."""
    files: tuple[str, ...]
    """POSIX paths below root, sorted by class, then by name."""
    labels: np.ndarray
    """Class number of each file."""
    fingerprint: str
    """sha256 of class names, file names and labels: equal on every machine that holds the same files."""

    def __len__(self) -> int:
        return len(self.files)

    def path(self, row: int) -> str:
        """Return the full path of the file in ``row``."""
        return f"{self.root}/{self.files[row]}"


def make_index(root: Path, classes: tuple[str, ...], files: tuple[str, ...], labels: np.ndarray) -> Index:
    """Return an Index with its fingerprint."""
    labels = labels.astype(np.int64)
    digest = hashlib.sha256()
    for part in ("\0".join(classes), "\0\0", "\0".join(files), "\0\0"):
        digest.update(os.fsencode(part))
    digest.update(labels.astype("<i8").tobytes())
    return Index(root, classes, files, labels, digest.hexdigest())


def train_and_val(data_dir: str | Path) -> tuple[Index, Index]:
    """Return the training and validation images of an ImageFolder tree, checked against each other.

    Raises UserError where a folder is missing or empty, or where the two have different classes.
    """
    root = _data_folder(data_dir)
    if not (root / "train").is_dir():
        raise UserError(f"{root} has no folder 'train'.\nExpected {root}/train/CLASS/*.jpg and {root}/val/CLASS/*.jpg.")
    validation_root = _validation_folder(root)
    train, val = scan_folder(root / "train"), scan_folder(validation_root)
    _require_same_classes(train, val)
    return train, val


def validation(data_dir: str | Path) -> Index:
    """Return the validation images of an ImageFolder tree; the training images need not be there."""
    return scan_folder(_validation_folder(_data_folder(data_dir)))


def scan_folder(root: str | Path) -> Index:
    """Return the images of ``root``/CLASS/**; every folder directly below ``root`` is a class.

    A class folder may be a symbolic link, but not to ``root`` or above it; links to folders further down are not
    followed, so no image is found twice through a loop. Names that begin with a dot are ignored.
    """
    root = Path(root)
    classes = tuple(sorted(_class_folders(root)))
    if not classes:
        raise UserError(f"{root} has no class folders.\nExpected images as {root}/CLASS/*.jpg.")
    files: list[str] = []
    counts = []
    for name in classes:
        found = sorted(_images(f"{root}/{name}", prefix=name))
        files.extend(found)
        counts.append(len(found))
    _require_images(root, classes, counts)
    return make_index(root, classes, tuple(files), np.repeat(np.arange(len(classes)), counts))


def _data_folder(data_dir: str | Path) -> Path:
    root = Path(data_dir).expanduser()
    if not root.is_dir():
        raise UserError(f"data_dir={str(data_dir)!r} is not a folder.\nGive the folder that holds train/ and val/.")
    return root


def _validation_folder(root: Path) -> Path:
    for name in VALIDATION_FOLDERS:
        if (root / name).is_dir():
            return root / name
    raise UserError(f"{root} has no folder 'val' or 'validation'.\nExpected {root}/val/CLASS/*.jpg.")


def _class_folders(root: Path) -> Iterator[str]:
    """Yield the names of the folders below ``root``, without links that lead back to ``root`` or above it."""
    real = root.resolve()
    with os.scandir(root) as entries:
        for entry in entries:
            if entry.name.startswith(".") or not entry.is_dir():
                continue
            if not (entry.is_symlink() and real.is_relative_to(Path(entry.path).resolve())):
                yield entry.name


def _images(folder: str, *, prefix: str) -> Iterator[str]:
    """Yield ``prefix``/name of every image at or below ``folder``."""
    with os.scandir(folder) as entries:
        for entry in entries:
            name = entry.name
            if name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from _images(entry.path, prefix=f"{prefix}/{name}")
            elif name.rpartition(".")[2].lower() in SUFFIXES and not entry.is_dir():
                yield f"{prefix}/{name}"


def _require_images(root: Path, classes: tuple[str, ...], counts: list[int]) -> None:
    empty = [name for name, count in zip(classes, counts, strict=True) if not count]
    if len(empty) == len(classes):
        raise UserError(f"{root} holds no images in its {len(classes)} class folders.\nExpected {root}/CLASS/*.jpg.")
    if empty:
        raise UserError(f"{root} has classes without images: {_some(empty)}.\nAdd their images or remove the folders.")


def _require_same_classes(train: Index, val: Index) -> None:
    train_only, val_only = set(train.classes) - set(val.classes), set(val.classes) - set(train.classes)
    if not (train_only or val_only):
        return
    sides = [(train_only, train.root), (val_only, val.root)]
    parts = [f"only in {root}: {_some(sorted(names))}" for names, root in sides if names]
    raise UserError(f"Training and validation classes differ: {'; '.join(parts)}.\nBoth need the same class folders.")


def _some(names: list[str], *, most: int = 5) -> str:
    """Return the first few names, and how many more there are."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")
