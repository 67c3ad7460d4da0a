"""The classes of ImageNet's validation images, whose file names do not tell them: Kaggle's table or the devkit."""

import csv
import io
import re
import tarfile
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from backbones.dataset.index import Row, some, stem
from backbones.errors import UserError

SOLUTION = "LOC_val_solution.csv"
DEVKIT = "ILSVRC2012_devkit_t12"
IDS = "data/ILSVRC2012_validation_ground_truth.txt"
META = "data/meta.mat"

LARGEST_BYTES = 2**26
"""The devkit's files are far below; anything larger is something else."""


class GroundTruth(NamedTuple):
    """Which image shows what."""

    file: Path
    """Where it was read."""
    classes: dict[str, str]
    """WNID of each image, by its name without the ending."""


class Unlabelled(NamedTuple):
    """One image whose class only the ground truth knows."""

    name: str
    """File name without folders."""
    file: str
    offset: int
    length: int


def find_ground_truth(folders: Sequence[Path]) -> GroundTruth | None:
    """Read the devkit (archive or folder) that lies in one of ``folders``, else Kaggle's table, else nothing."""
    for name, read in ((f"{DEVKIT}.tar.gz", read_devkit), (DEVKIT, read_devkit), (SOLUTION, read_solution)):
        for folder in folders:
            if (folder / name).exists():
                return read(folder / name)
    return None


def label(truth: GroundTruth, images: Iterable[Unlabelled], where: Path) -> tuple[tuple[str, ...], list[Row]]:
    """Return the classes and the rows of ``images``, which lie in ``where``; each is named WNID/NAME.

    Raises UserError where an image has no row in the ground truth, a row no image, or a row two images.
    """
    by_name = _by_name(images, where)
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


def _by_name(images: Iterable[Unlabelled], where: Path) -> dict[str, Unlabelled]:
    """Return the images by their names without endings; UserError names two that have one."""
    by_name: dict[str, Unlabelled] = {}
    for image in images:
        other = by_name.setdefault(stem(image.name), image)
        if other is not image:
            both = " and ".join(f"{each.name} ({each.file}, byte {each.offset})" for each in sorted((other, image)))
            raise UserError(f"{where} has two images of one name: {both}.\nRemove one of them.")
    return by_name


def read_solution(file: Path) -> GroundTruth:
    """Read Kaggle's table: ImageId, and PredictionString that begins with the WNID of the image.

    Raises UserError, with file and line, where the table is damaged or contradicts itself.
    """
    with file.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as opened:
        rows = csv.DictReader(opened)
        try:
            return GroundTruth(file, _classes_of(rows, file))
        except csv.Error as error:
            # line_num counts the lines that were read whole
            raise UserError(f"{file}, line {rows.line_num + 1}: {error}.\nDownload it again from Kaggle.") from None


def _classes_of(rows: "csv.DictReader[str]", file: Path) -> dict[str, str]:
    if not {"ImageId", "PredictionString"} <= set(rows.fieldnames or ()):
        raise UserError(f"{file} has no columns ImageId and PredictionString.\nDownload it again from Kaggle.")
    classes: dict[str, str] = {}
    for row in rows:
        name, words = stem(row["ImageId"] or ""), (row["PredictionString"] or "").split()
        if not name or not words:
            raise UserError(f"{file}, line {rows.line_num}: the image or its class is missing.")
        if classes.setdefault(name, words[0]) != words[0]:
            raise UserError(f"{file}, line {rows.line_num}: {name} has two classes.")
    return classes


def read_devkit(devkit: Path) -> GroundTruth:
    """Read the official devkit, the archive or the folder: line k of its list is the class of validation image k.

    The list has ILSVRC2012_IDs, which are not in the order of the WNIDs: meta.mat translates them.
    """
    ids, meta = _files_of(devkit)
    wnid_of = _wnids(devkit, meta)
    classes: dict[str, str] = {}
    for line, word in enumerate(ids.split(), start=1):
        if not word.isdigit() or int(word) not in wnid_of:
            raise UserError(f"{devkit}: {IDS}, line {line}: {word.decode(errors='replace')!r} is no class of {META}.")
        classes[f"ILSVRC2012_val_{line:08d}"] = wnid_of[int(word)]
    return GroundTruth(devkit, classes)


def _files_of(devkit: Path) -> tuple[bytes, bytes]:
    """Return the contents of the list and of meta.mat; nothing is unpacked to the disk."""
    found: dict[str, bytes] = {}
    try:
        if devkit.is_dir():
            found = {name: (devkit / name).read_bytes() for name in (IDS, META) if (devkit / name).is_file()}
        else:
            found = dict(_members(devkit))
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        raise UserError(f"{devkit} cannot be read: {error}.\nDownload it again.") from None
    if missing := [name for name in (IDS, META) if name not in found]:
        raise UserError(f"{devkit} lacks {some(missing)}.\nIt should be {DEVKIT}.tar.gz of image-net.org.")
    return found[IDS], found[META]


def _members(archive: Path) -> Iterable[tuple[str, bytes]]:
    with tarfile.open(archive, "r:*") as opened:
        for member in opened:
            name = "/".join(member.name.split("/")[-2:])
            content = opened.extractfile(member) if name in (IDS, META) and member.isreg() else None
            if content is not None and member.size <= LARGEST_BYTES:
                yield name, content.read()


def _wnids(devkit: Path, meta: bytes) -> dict[int, str]:
    """Return the WNID of each ILSVRC2012_ID that is a class: a synset without children."""
    try:
        from scipy.io import loadmat  # noqa: PLC0415  # only for this one file
    except ModuleNotFoundError as error:
        raise UserError(f"{devkit} needs scipy.\nInstall it with pip install 'backbones[train]'.") from error
    try:
        synsets = np.atleast_1d(loadmat(io.BytesIO(meta), squeeze_me=True)["synsets"])
        wnids = {int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in synsets if int(row["num_children"]) == 0}
    except Exception as error:  # noqa: BLE001  # a damaged file fails anywhere in scipy
        raise UserError(f"{devkit}: {META} cannot be read: {error}.\nDownload it again.") from None
    if wrong := [name for name in wnids.values() if not re.fullmatch(r"n\d{8}", name)]:
        raise UserError(f"{devkit}: {META} has classes that are not like n01440764: {some(wrong)}.")
    return wnids
