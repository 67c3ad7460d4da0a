"""A folder that `python -m backbones prepare` has written: train.npz and val.npz."""

import json
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import numpy as np

from backbones.dataset.index import Index, Split, read_index, some
from backbones.errors import UserError

SHAPE = "train.npz and val.npz (written by `python -m backbones prepare`)"

PLAN = "prepare.json"
"""What the folder is made from; it is there before the first shard."""

ARCHIVES = "archives"
"""Entry of the plan that is written last: split -> archive -> its state when it was indexed."""

State = list[int | None]
"""Bytes of an archive and, outside the folder, when it was last changed, in ns: the same images in another order have
the same bytes in all."""


def index_file(root: Path, split: Split) -> Path:
    """Return the index of one split."""
    return root / f"{split}.npz"


def is_complete(root: Path) -> bool:
    """Tell whether both indexes and what they point into are there as `prepare` left them."""
    return _has_indexes(root) and ARCHIVES in read_plan(root) and not (changed(root, "train") or changed(root, "val"))


def found(root: Path) -> bool:
    """Tell whether `prepare` was here, complete or not."""
    return any((root / name).is_file() for name in (PLAN, "train.npz", "val.npz"))


def scan(root: Path, split: Split, executor: Executor | None = None) -> Index:  # noqa: ARG001  # as every source
    """Return one split; UserError where an archive is no longer the one whose images were indexed."""
    if (root / PLAN).is_file() and not _has_indexes(root):
        raise UserError(f"{root} is not complete: `prepare` was interrupted.\nRun the same command again to go on.")
    if not index_file(root, split).is_file():
        raise UserError(f"{root} has no {split}.npz.\nExpected {SHAPE}.")
    if others := changed(root, split):
        raise UserError(
            f"{some([str(path) for path in others])} has changed since the index was written: prepare it anew.\n"
            f"Give the command again that wrote {root}."
        )
    index = read_index(index_file(root, split))
    if not index.root.is_dir():
        raise UserError(f"The images of {root} lie in {index.root}, which is not there.\nMount it, or prepare anew.")
    return index


def read_plan(root: Path) -> dict[str, Any]:
    """Return what `prepare` noted in ``root``; empty where there is nothing that can be read."""
    file = root / PLAN
    try:
        plan = json.loads(file.read_text()) if file.is_file() else {}
    except ValueError:
        return {}
    return plan if isinstance(plan, dict) else {}


def describe_archives(root: Path, index: Index) -> dict[str, State]:
    """Return the state of each archive that ``index`` points into: by its path below ``root``, or its absolute path."""
    home, states = root.resolve(), {}
    for number in np.unique(index.numbers).tolist():
        name = index.files[number]
        if name.endswith(".tar"):
            path = (index.root / name).absolute()
            is_ours = path.resolve().is_relative_to(home)
            states[str(path.resolve().relative_to(home) if is_ours else path)] = _state(path, is_ours=is_ours)
    return states


def changed(root: Path, split: Split) -> list[Path]:
    """Return the archives of ``split`` that are gone or not as they were; none where their state was not noted."""
    noted: dict[str, State] = read_plan(root).get(ARCHIVES, {}).get(split, {})
    return [root / name for name, state in noted.items() if _state(root / name, is_ours=state[1] is None) != state]


def _has_indexes(root: Path) -> bool:
    return index_file(root, "train").is_file() and index_file(root, "val").is_file()


def _state(path: Path, *, is_ours: bool) -> State | None:
    """Return the state of an archive, or None where there is none; those in the folder may be copied with it."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return [status.st_size, None if is_ours else status.st_mtime_ns]
