"""A folder written by `python -m backbones prepare`: train.npz and val.npz."""

import json
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import numpy as np

from backbones.dataset.index import Index, Split, read_index, some
from backbones.dataset.place import is_archive
from backbones.errors import UserError

SHAPE = "train.npz and val.npz (written by `python -m backbones prepare`)"

REQUEST = "prepare.json"
"""File with the images and options of `prepare`, written before the first shard."""

ARCHIVES = "archives"
"""Last entry of the request: split -> archive -> its state when it was indexed."""

State = list[int | None]
"""Size of an archive in bytes and, outside the folder, the time of its last change in ns. The size alone does not
change when the images are put in another order."""


def index_file(root: Path, split: Split) -> Path:
    """Return the index of one split."""
    return root / f"{split}.npz"


def is_complete(root: Path) -> bool:
    """Return whether both indexes and their archives are as `prepare` left them."""
    if not _has_indexes(root) or ARCHIVES not in read_request(root):
        return False
    return not find_changed_archives(root, "train") and not find_changed_archives(root, "val")


def fits(root: Path) -> bool:
    """Return whether `prepare` wrote to the folder, even if it was interrupted."""
    return any((root / name).is_file() for name in (REQUEST, "train.npz", "val.npz"))


def scan(root: Path, split: Split, executor: Executor | None = None) -> Index:  # noqa: ARG001  # as every source
    """Return one split. Raises UserError where an archive has changed since it was indexed."""
    if (root / REQUEST).is_file() and not _has_indexes(root):
        raise UserError(f"{root} is not complete: `prepare` was interrupted.\nRun the same command again to go on.")
    if not index_file(root, split).is_file():
        raise UserError(f"{root} has no {split}.npz.\nExpected {SHAPE}.")
    if others := find_changed_archives(root, split):
        raise UserError(
            f"{some([str(path) for path in others])} has changed since the index was written: prepare it anew.\n"
            f"Give the command again that wrote {root}."
        )
    index = read_index(index_file(root, split))
    if not index.root.is_dir():
        raise UserError(f"The images of {root} are in {index.root}, which does not exist.\nMount it, or prepare anew.")
    return index


def read_request(root: Path) -> dict[str, Any]:
    """Return the request in ``root``; empty where it is missing or damaged."""
    file = root / REQUEST
    try:
        request = json.loads(file.read_text()) if file.is_file() else {}
    except ValueError:
        return {}
    return request if isinstance(request, dict) else {}


def describe_archives(root: Path, index: Index) -> dict[str, State]:
    """Return the state of each archive of ``index``, by its path below ``root`` or its absolute path."""
    home, states = root.resolve(), {}
    for number in np.unique(index.numbers).tolist():
        name = index.files[number]
        if is_archive(name):
            path = (index.root / name).absolute()
            is_inside = path.resolve().is_relative_to(home)
            states[str(path.resolve().relative_to(home) if is_inside else path)] = _state(path, is_inside=is_inside)
    return states


def find_changed_archives(root: Path, split: Split) -> list[Path]:
    """Return the archives of ``split`` that are missing or have changed; none where their state is unknown."""
    noted: dict[str, State] = read_request(root).get(ARCHIVES, {}).get(split, {})
    return [root / name for name, state in noted.items() if _state(root / name, is_inside=state[1] is None) != state]


def _has_indexes(root: Path) -> bool:
    return index_file(root, "train").is_file() and index_file(root, "val").is_file()


def _state(path: Path, *, is_inside: bool) -> State | None:
    """Return the state of an archive, None where it is missing. Inside the folder its time may change by copying."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return [status.st_size, None if is_inside else status.st_mtime_ns]
