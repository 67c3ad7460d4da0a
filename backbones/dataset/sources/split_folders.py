"""Folders of the two splits, and the names that other data sets give them."""

from pathlib import Path
from shlex import quote

from backbones.dataset.index import Split
from backbones.errors import UserError

VALIDATION_FOLDERS = ("val", "validation")

OTHER_NAMES: dict[Split, tuple[str, ...]] = {
    "train": ("train", "training", "trainset", "train_set", "training_set", "train_images", "ilsvrc2012_img_train"),
    "val": (
        *VALIDATION_FOLDERS, "valid", "validate", "valset", "val_set", "validation_set", "val_images",
        "ilsvrc2012_img_val", "dev", "eval", "test", "testing", "testset", "test_set",
    ),
}  # fmt: skip
"""Names in lower case, the likeliest first; they are found in any case, and with - for _."""

FOLDERS: dict[Split, str] = {"train": "'train'", "val": "'val' or 'validation'"}


def split_folder(root: Path, split: Split) -> Path:
    """Return ``root``/train, or the one of ``root``/val and ``root``/validation that exists.

    Raises UserError where there is none or are two; the message names folders that may be meant.
    """
    names = ["train"] if split == "train" else [name for name in VALIDATION_FOLDERS if (root / name).is_dir()]
    if len(names) == 2:
        raise UserError(f"{root} has both a folder 'val' and a folder 'validation'.\nRemove or rename one of them.")
    if not names or not (root / names[0]).is_dir():
        similar = describe_similar(root, split)
        raise UserError(f"{root} has no folder {FOLDERS[split]}.{similar}\nExpected {root}/{split}/CLASS/*.jpg.")
    return root / names[0]


def find_similar(root: Path, split: Split) -> Path | None:
    """Return the folder in ``root`` whose name may mean ``split``, such as Train or valid."""
    order = {name: number for number, name in enumerate(OTHER_NAMES[split])}
    folders = [path for path in root.iterdir() if path.name.lower().replace("-", "_") in order and path.is_dir()]
    return min(folders, key=lambda path: (order[path.name.lower().replace("-", "_")], path.name), default=None)


def has_similar(root: Path) -> bool:
    """Return whether there are folders whose names may mean the two splits."""
    return all(find_similar(root, split) for split in OTHER_NAMES)


def describe_similar(root: Path, split: Split) -> str:
    """Return a sentence with the command that names a similar folder as it is expected; empty where there is none."""
    found, target, archive = find_similar(root, split), quote(str(root / split)), f"ILSVRC2012_img_{split}.tar"
    if found is None:
        return f" It has {archive}: unpack it into {target}." if (root / archive).is_file() else ""
    if found.name.lower().startswith("test"):
        return f" It has {found.name!r}: to validate on these images, `ln -s {quote(found.name)} {target}`."
    return f" It has {found.name!r}; rename it: `mv {quote(str(found))} {target}`."
