"""Index of a split: one row (file, offset, length, label) per image, however the images are stored."""

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Literal, NamedTuple, Self

import numpy as np

from backbones.dataset.class_names import refuse_equivalent
from backbones.dataset.place import Place
from backbones.errors import UserError
from backbones.files import new_file

Split = Literal["train", "val"]

FORMAT_VERSION = 1
"""Version of the index file."""

COLUMNS = ("numbers", "offsets", "lengths", "labels")
"""Arrays of an Index that hold one number per image."""

SUFFIXES = frozenset({"jpg", "jpeg", "png", "bmp", "webp", "tif", "tiff", "ppm", "pgm"})
"""Endings of image files, in lower or upper case. The content decides how a file is decoded."""


@dataclass(frozen=True, eq=False)
class Strings(Sequence[str]):
    """Sequence of texts in one block of memory: a million names cost their bytes, not a million objects.

    Shape: data (B,) uint8; ends (N,) int64; text i is data[ends[i - 1]:ends[i]].
    """

    data: np.ndarray
    ends: np.ndarray

    @classmethod
    def of(cls, texts: Iterable[str]) -> Self:
        """Pack ``texts``; file names that are not UTF-8 keep their bytes."""
        parts = [os.fsencode(text) for text in texts]
        lengths = np.fromiter(map(len, parts), dtype=np.int64, count=len(parts))
        return cls(np.frombuffer(b"".join(parts), dtype=np.uint8), np.cumsum(lengths))

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, i: int) -> str:  # pyright: ignore[reportIncompatibleMethodOverride]  # no slices
        if not -len(self) <= i < len(self):
            raise IndexError(i)
        start = int(self.ends[i - 1]) if i % len(self) else 0
        return os.fsdecode(self.data[start : int(self.ends[i])].tobytes())

    def take(self, rows: np.ndarray) -> Self:
        """Return the texts of ``rows``, in that order."""
        return type(self).of(self[int(row)] for row in rows)


@dataclass(frozen=True, eq=False)
class Index:
    """The images of one split, sorted by class and name. Label k is the k-th class in sorted order.

    Shape: numbers (N,) int32; offsets, lengths, labels (N,) int64 for N images.
    """

    root: Path
    """Folder of the relative paths in ``files``."""
    classes: tuple[str, ...]
    """Class names, sorted."""
    names: Strings
    """CLASS/NAME of each image; it does not depend on how the image is stored."""
    files: Strings
    """Files that hold the images, without repetition."""
    numbers: np.ndarray
    """Position in ``files`` of the file that holds each image."""
    offsets: np.ndarray
    """Start of each image in its file, in bytes."""
    lengths: np.ndarray
    """Bytes of each image."""
    labels: np.ndarray
    """Class number of each image."""
    fingerprint: str
    """sha256 of classes, names without their endings, lengths and labels: equal for the same images in any storage."""
    notes: tuple[str, ...] = ()
    """Remarks for the user about the search for the images."""

    def __len__(self) -> int:
        return len(self.labels)

    def place(self, row: int) -> Place:
        """Return the place of the bytes of image ``row``."""
        path = os.path.join(self.root, self.files[int(self.numbers[row])])  # noqa: PTH118  # for every image of every epoch
        return Place(path, int(self.offsets[row]), int(self.lengths[row]))

    def describe(self, row: int) -> str:
        """Return the name of an image for messages: its path, or its name and its archive."""
        place = self.place(row)
        return f"{self.names[row]} in {place}" if place.is_member else place.path

    def take(self, rows: np.ndarray, classes: tuple[str, ...] | None = None) -> Self:
        """Return an index of ``rows`` (sorted, int64) only; ``classes`` are the remaining ones, sorted."""
        kept = self.classes if classes is None else classes
        old_label = {name: label for label, name in enumerate(self.classes)}
        new_label = np.full(len(self.classes), -1, dtype=np.int64)
        new_label[[old_label[name] for name in kept]] = np.arange(len(kept))
        labels = new_label[self.labels[rows]]
        names = self.names.take(rows)
        return replace(
            self,
            classes=kept,
            names=names,
            numbers=self.numbers[rows],
            offsets=self.offsets[rows],
            lengths=self.lengths[rows],
            labels=labels,
            fingerprint=fingerprint(kept, names, self.lengths[rows], labels),
        )


class Row(NamedTuple):
    """One image found by a source."""

    label: int
    name: str
    """CLASS/NAME."""
    file: str
    """Path below the root, or an absolute path."""
    offset: int
    length: int


def make_index(root: Path, classes: tuple[str, ...], rows: Iterable[Row], notes: tuple[str, ...] = ()) -> Index:
    """Return an Index of ``rows``, which may come in any order.

    Rows are sorted by names without endings, so that .JPEG and .jpg give the same order. Raises UserError where two
    images have the same name, or two classes the same letters in different Unicode forms.
    """
    refuse_equivalent(classes, root)
    rows = sorted(rows, key=lambda row: (row.label, without_ending(row.name) + ".", row))
    if twice := [a.name for a, b in pairwise(rows) if a.name == b.name]:
        raise UserError(f"{root} has two images of the same name: {some(twice)}.\nRename or remove one of them.")
    names, paths = [row.name for row in rows], [row.file for row in rows]
    offsets, lengths, labels = (
        np.array([getattr(row, column) for row in rows], dtype=np.int64) for column in ("offset", "length", "label")
    )
    files = dict.fromkeys(paths)
    number_of = dict(zip(files, range(len(files)), strict=True))
    numbers = np.fromiter(map(number_of.__getitem__, paths), dtype=np.int32, count=len(paths))
    digest = fingerprint(classes, names, lengths, labels)
    return Index(root, classes, Strings.of(names), Strings.of(files), numbers, offsets, lengths, labels, digest, notes)


def fingerprint(classes: Sequence[str], names: Iterable[str], lengths: np.ndarray, labels: np.ndarray) -> str:
    """Return a sha256 that is the same for two sources of the same images."""
    digest = hashlib.sha256(os.fsencode("\0".join(classes)) + b"\0\0")
    digest.update(os.fsencode("\0".join(without_ending(name) for name in names)) + b"\0\0")
    digest.update(lengths.astype("<i8").tobytes() + labels.astype("<i8").tobytes())
    return digest.hexdigest()


def places_digest(index: Index) -> str:
    """Return the sha256 of files, numbers and offsets: the places of the images, which the fingerprint leaves out.

    The root is left out too, so that images keep their digest when they move together with their index.
    """
    digest = hashlib.sha256(os.fsencode("\0".join(index.files)) + b"\0\0")
    digest.update(index.numbers.astype("<i8").tobytes() + index.offsets.astype("<i8").tobytes())
    return digest.hexdigest()


def without_ending(name: str) -> str:
    """Return CLASS/NAME without the ending of an image file, in which archives and shards differ (.JPEG, .jpg)."""
    before, _, ending = name.rpartition(".")
    return before if ending.lower() in SUFFIXES else name


def write_index(index: Index, file: Path) -> None:
    """Write one split to ``file`` (.npz, arrays and texts only), which appears complete or not at all."""
    arrays = {name: getattr(index, name) for name in COLUMNS}
    texts = {"classes": Strings.of(index.classes), "names": index.names, "files": index.files}
    for name, strings in texts.items():
        arrays |= {f"{name}_data": strings.data, f"{name}_ends": strings.ends}
    root = index.root.resolve()
    about = Strings.of([str(FORMAT_VERSION), index.fingerprint, "." if root == file.parent.resolve() else str(root)])
    with new_file(file) as opened:
        np.savez_compressed(opened, about_data=about.data, about_ends=about.ends, **arrays)


def read_index(file: Path) -> Index:
    """Return the split that :func:`write_index` wrote. Raises UserError where it is damaged or of another version.

    Images in the folder of the index itself may have moved together with it.
    """
    try:
        with file.open("rb") as opened, np.load(opened, allow_pickle=False) as arrays:
            about, classes, names, files = (
                Strings(arrays[f"{name}_data"], arrays[f"{name}_ends"])
                for name in ("about", "classes", "names", "files")
            )
            columns = {name: arrays[name] for name in COLUMNS}
    except Exception as error:  # noqa: BLE001  # a damaged file fails anywhere in zipfile, zlib and numpy
        raise UserError(f"{file} is not a readable index: {error}.\nWrite it again with `prepare`.") from None
    if about[0] != str(FORMAT_VERSION):
        raise UserError(f"{file} has format {about[0]}; this version reads {FORMAT_VERSION}: `prepare` it anew.")
    index = Index(file.parent / about[2], tuple(classes), names, files, fingerprint=about[1], **columns)
    if fingerprint(index.classes, names, index.lengths, index.labels) != index.fingerprint:
        raise UserError(f"{file} is damaged: its fingerprint does not fit.\nWrite it again with `prepare`.")
    return index


def find_repeated(names: Iterable[str]) -> list[str]:
    """Return the names that occur more than once, sorted."""
    return sorted(name for name, count in Counter(names).items() if count > 1)


def some(names: Sequence[str], *, most: int = 5) -> str:
    """Return the first ``most`` names and the number of the others, as a text."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")
