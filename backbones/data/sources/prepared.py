"""A folder that `python -m backbones prepare` has written: train.npz and val.npz."""

from concurrent.futures import Executor
from pathlib import Path

from backbones.data.index import Index, Split, read_index
from backbones.errors import UserError

SHAPE = "train.npz and val.npz (written by `python -m backbones prepare`)"

PLAN = "prepare.json"
"""What the folder is made from; it is there before the first shard."""


def index_file(root: Path, split: Split) -> Path:
    """Return the index of one split."""
    return root / f"{split}.npz"


def is_complete(root: Path) -> bool:
    """Tell whether both indexes are there; they are written last."""
    return index_file(root, "train").is_file() and index_file(root, "val").is_file()


def found(root: Path) -> bool:
    """Tell whether `prepare` was here, complete or not."""
    return any((root / name).is_file() for name in (PLAN, "train.npz", "val.npz"))


def scan(root: Path, split: Split, executor: Executor | None = None) -> Index:  # noqa: ARG001  # as every source
    """Return one split."""
    if (root / PLAN).is_file() and not is_complete(root):
        raise UserError(f"{root} is not complete: `prepare` was interrupted.\nRun the same command again to go on.")
    if not index_file(root, split).is_file():
        raise UserError(f"{root} has no {split}.npz.\nExpected {SHAPE}.")
    return read_index(index_file(root, split))
