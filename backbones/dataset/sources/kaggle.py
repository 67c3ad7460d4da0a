"""Kaggle's ImageNet: ILSVRC/Data/CLS-LOC/{train/WNID,val}, its validation images labelled by a table."""

from concurrent.futures import Executor
from pathlib import Path

from backbones.dataset.index import Index, Split, make_index
from backbones.dataset.sources.folder import is_annotated, is_flat, list_images, require_links, scan_folder
from backbones.dataset.sources.ground_truth import DEVKIT, SOLUTION, Unlabelled, find_ground_truth, label
from backbones.dataset.sources.split_folders import split_folder
from backbones.errors import UserError

SHAPE = f"ILSVRC/Data/CLS-LOC/train, ILSVRC/Data/CLS-LOC/val and {SOLUTION} (Kaggle)"

NESTED = ("ILSVRC/Data/CLS-LOC", "Data/CLS-LOC", "CLS-LOC")
"""Possible places of the images below the given folder."""

LEVELS_TO_TABLE = 3
"""Folder levels between CLS-LOC and the folder with the table."""


def fits(root: Path) -> bool:
    """Return whether Kaggle's folders exist, or validation images without class folders."""
    return any((root / name).is_dir() for name in NESTED) or (is_flat(root) and not is_annotated(root))


def scan(root: Path, split: Split, executor: Executor | None = None) -> Index:
    """Return the images of one split; validation images may also be in class folders, which are then used."""
    images = next((root / name for name in NESTED if (root / name).is_dir()), root)
    folder = split_folder(images, split)
    return _scan_flat(folder) if split == "val" and is_flat(images) else scan_folder(folder, executor)


def _scan_flat(folder: Path) -> Index:
    truth = find_ground_truth([folder, *folder.resolve().parents[: LEVELS_TO_TABLE + 1]])
    if truth is None:
        raise UserError(
            f"{folder} has validation images without class folders: they are unlabelled.\n"
            f"Put {SOLUTION} (Kaggle) or {DEVKIT}.tar.gz (image-net.org) beside it, or sort them into folders."
        )
    listing = list_images(str(folder))
    require_links(folder, listing.broken)
    images = (Unlabelled(Path(each.path).name, each.path, 0, each.length) for each in listing.images)
    classes, rows = label(truth, images, folder)
    return make_index(folder, classes, rows)
