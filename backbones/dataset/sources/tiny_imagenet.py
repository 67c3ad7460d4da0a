"""Tiny-ImageNet as it is downloaded: train/WNID/images/*.JPEG, and val/images/*.JPEG labelled by a table."""

from concurrent.futures import Executor
from pathlib import Path

from backbones.dataset.index import Index, Split, make_index, without_ending
from backbones.dataset.sources.folder import TABLE, is_annotated, list_images, require_links, scan_folder
from backbones.dataset.sources.ground_truth import GroundTruth, Unlabelled, label
from backbones.dataset.sources.split_folders import split_folder
from backbones.errors import UserError

SHAPE = f"train/WNID/images/*.JPEG, val/images/*.JPEG and val/{TABLE} (Tiny-ImageNet)"

fits = is_annotated


def scan(root: Path, split: Split, executor: Executor | None = None) -> Index:
    """Return the images of one split. The folder test/, which has no labels, is not read."""
    folder = split_folder(root, split)
    return scan_folder(folder, executor) if split == "train" else _scan_val(folder)


def _scan_val(folder: Path) -> Index:
    truth = read_annotations(folder / TABLE)
    below = "images/" if (folder / "images").is_dir() else ""
    listing = list_images(str(folder / below), below)
    require_links(folder, listing.broken)
    images = (Unlabelled(Path(each.path).name, each.path, 0, each.length) for each in listing.images)
    classes, rows = label(truth, images, folder)
    return make_index(folder, classes, rows)


def read_annotations(file: Path) -> GroundTruth:
    """Read the table: on each line the name of an image, its WNID, and a box, with tabs between.

    Raises UserError with file and line where an image is named twice, or its class is missing.
    """
    if not file.is_file():
        raise UserError(f"{file} is missing.\nExpected {SHAPE}.")
    classes: dict[str, str] = {}
    for number, line in enumerate(file.read_text(encoding="utf-8", errors="surrogateescape").split("\n"), start=1):
        image, wnid = (part.strip() for part in [*line.split("\t"), ""][:2])
        if not line.strip():
            continue
        if not image or not wnid:
            raise UserError(f"{file}, line {number}: expected the name of an image, a tab and its class.")
        if without_ending(image) in classes:
            raise UserError(f"{file}, line {number}: {image} is named twice.\nKeep one line for each image.")
        classes[without_ending(image)] = wnid
    return GroundTruth(file, classes)
