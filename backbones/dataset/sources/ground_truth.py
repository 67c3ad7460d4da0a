"""Classes of ImageNet's validation images, from Kaggle's table or the devkit: their file names do not tell them."""

import csv
import io
import re
import tarfile
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from backbones.dataset.index import Row, some, without_ending
from backbones.errors import UserError

SOLUTION = "LOC_val_solution.csv"
DEVKIT = "ILSVRC2012_devkit_t12"
IDS = "data/ILSVRC2012_validation_ground_truth.txt"
META = "data/meta.mat"

MAX_BYTES = 2**26
"""Limit far above the size of the devkit's two files; larger ones are ignored."""


class GroundTruth(NamedTuple):
    """Classes of the validation images."""

    file: Path
    """The table or devkit that was read."""
    classes: dict[str, str]
    """WNID of each image, by name without ending."""


class Unlabelled(NamedTuple):
    """Image without a class of its own."""

    name: str
    """File name without folders."""
    file: str
    offset: int
    length: int


def find_ground_truth(folders: Sequence[Path]) -> GroundTruth | None:
    """Read the devkit (archive or folder) in one of ``folders``, else Kaggle's table; None where there is neither."""
    for name, read in ((f"{DEVKIT}.tar.gz", read_devkit), (DEVKIT, read_devkit), (SOLUTION, read_solution)):
        for folder in folders:
            if (folder / name).exists():
                return read(folder / name)
    return None


def label(truth: GroundTruth, images: Iterable[Unlabelled], where: Path) -> tuple[tuple[str, ...], list[Row]]:
    """Return the classes, and an index row named WNID/NAME for each of ``images``, which are in ``where``.

    Raises UserError where the ground truth lacks an image, names a missing one, or has one name for two images.
    """
    by_name = _sort_by_name(images, where)
    if unknown := sorted(by_name.keys() - truth.classes.keys()):
        raise UserError(f"{truth.file} does not tell the class of {some(unknown)} in {where}.\nRemove these images.")
    if missing := sorted(truth.classes.keys() - by_name.keys()):
        raise UserError(
            f"{where} lacks {len(missing)} images that {truth.file} names: {some(missing)}.\n"
            "Validation is never shortened: download or unpack the images again."
        )
    classes = tuple(sorted(set(truth.classes.values())))
    number = {name: k for k, name in enumerate(classes)}
    wnids = ((truth.classes[name], image) for name, image in by_name.items())
    return classes, [
        Row(number[wnid], f"{wnid}/{image.name}", image.file, image.offset, image.length) for wnid, image in wnids
    ]


def _sort_by_name(images: Iterable[Unlabelled], where: Path) -> dict[str, Unlabelled]:
    """Return the images by their names without endings. Raises UserError where two have the same name."""
    by_name: dict[str, Unlabelled] = {}
    for image in images:
        other = by_name.setdefault(without_ending(image.name), image)
        if other is not image:
            both = " and ".join(f"{each.name} ({each.file}, byte {each.offset})" for each in sorted((other, image)))
            raise UserError(f"{where} has two images of the same name: {both}.\nRemove one of them.")
    return by_name


def read_solution(file: Path) -> GroundTruth:
    """Read Kaggle's table: ImageId, and PredictionString, which begins with the WNID of the image.

    Raises UserError with file and line where the table is damaged or contradicts itself.
    """
    with file.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as opened:
        table = csv.DictReader(opened)
        try:
            return GroundTruth(file, _read_classes(table, file))
        except csv.Error as error:
            # line_num is the number of complete lines
            raise UserError(f"{file}, line {table.line_num + 1}: {error}.\nDownload it again from Kaggle.") from None


def _read_classes(table: "csv.DictReader[str]", file: Path) -> dict[str, str]:
    if not {"ImageId", "PredictionString"} <= set(table.fieldnames or ()):
        raise UserError(f"{file} has no columns ImageId and PredictionString.\nDownload it again from Kaggle.")
    classes: dict[str, str] = {}
    for line in table:
        name, words = without_ending(line["ImageId"] or ""), (line["PredictionString"] or "").split()
        if not name or not words:
            raise UserError(f"{file}, line {table.line_num}: the image or its class is missing.")
        if classes.setdefault(name, words[0]) != words[0]:
            raise UserError(f"{file}, line {table.line_num}: {name} has two classes.")
    return classes


def read_devkit(devkit: Path) -> GroundTruth:
    """Read the official devkit, archive or folder: line k of its list is the class of validation image k.

    The list has ILSVRC2012_IDs, whose order differs from that of the WNIDs. meta.mat translates them.
    """
    ids, meta = _read_files(devkit)
    wnid_of = _read_wnids(devkit, meta)
    classes: dict[str, str] = {}
    for line, word in enumerate(ids.split(), start=1):
        if not word.isdigit() or int(word) not in wnid_of:
            raise UserError(f"{devkit}: {IDS}, line {line}: {word.decode(errors='replace')!r} is no class of {META}.")
        classes[f"ILSVRC2012_val_{line:08d}"] = wnid_of[int(word)]
    return GroundTruth(devkit, classes)


def _read_files(devkit: Path) -> tuple[bytes, bytes]:
    """Return the contents of the list and of meta.mat, without unpacking to the disk."""
    found: dict[str, bytes] = {}
    try:
        if devkit.is_dir():
            found = {name: (devkit / name).read_bytes() for name in (IDS, META) if (devkit / name).is_file()}
        else:
            found = dict(_read_members(devkit))
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        raise UserError(f"{devkit} cannot be read: {error}.\nDownload it again.") from None
    if missing := [name for name in (IDS, META) if name not in found]:
        raise UserError(f"{devkit} lacks {some(missing)}.\nIt should be {DEVKIT}.tar.gz of image-net.org.")
    return found[IDS], found[META]


def _read_members(archive: Path) -> Iterable[tuple[str, bytes]]:
    with tarfile.open(archive, "r:*") as opened:
        for member in opened:
            name = "/".join(member.name.split("/")[-2:])
            content = opened.extractfile(member) if name in (IDS, META) and member.isreg() else None
            if content is not None and member.size <= MAX_BYTES:
                yield name, content.read()


def _read_wnids(devkit: Path, meta: bytes) -> dict[int, str]:
    """Return the WNID of each ILSVRC2012_ID that is a class: a synset without children."""
    try:
        from scipy.io import loadmat  # noqa: PLC0415  # only for this one file
    except ModuleNotFoundError as error:
        raise UserError(f"{devkit} needs scipy.\nInstall it with pip install 'backbones[train]'.") from error
    try:
        synsets = np.atleast_1d(loadmat(io.BytesIO(meta), squeeze_me=True)["synsets"])
        wnids = {
            int(synset["ILSVRC2012_ID"]): str(synset["WNID"]) for synset in synsets if int(synset["num_children"]) == 0
        }
    except Exception as error:  # noqa: BLE001  # a damaged file fails anywhere in scipy
        raise UserError(f"{devkit}: {META} cannot be read: {error}.\nDownload it again.") from None
    if wrong := [name for name in wnids.values() if not re.fullmatch(r"n\d{8}", name)]:
        raise UserError(f"{devkit}: {META} has classes that are not like n01440764: {some(wrong)}.")
    return wnids
