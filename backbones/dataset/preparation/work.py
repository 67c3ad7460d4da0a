"""The work that a request asks for: the index of a data set, and its shards where they are missing."""

from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backbones.dataset.damage import require_damage_check
from backbones.dataset.index import Index, Split, places_digest, read_index, write_index
from backbones.dataset.preparation.request import Request
from backbones.dataset.preparation.shards import create_shards, missing_shards, shard_files, write_shard
from backbones.dataset.preparation.shrink import encoder
from backbones.dataset.sources.prepared import (
    ARCHIVES,
    REQUEST,
    describe_archives,
    find_changed_archives,
    index_file,
    is_complete,
    read_request,
)
from backbones.dataset.sources.webdataset import CLASS_FILES, scan_shards
from backbones.dataset.workers import JOBS_PER_WORKER, as_they_finish
from backbones.errors import UserError
from backbones.files import json_text, remove_leftovers, write_text

FORMAT_VERSION = 1
"""Version of the record and of the shards."""

Splits = tuple[Index, Index]
"""Training and validation images."""


@dataclass(frozen=True)
class Work:
    """Work on the folder of a request."""

    request: Request
    splits: Splits
    record: dict[str, Any]
    """Everything that the result depends on; the content of prepare.json."""
    is_done: bool
    """The folder is complete."""
    has_moved: bool
    """The images are in other places than in the index of the folder."""
    removed: int
    """Number of shards that were missing or changed, and are written again."""
    images: int
    """Number of images to write into shards."""


def begin(request: Request, splits: Splits) -> Work:
    """Return the work that is left in the folder of ``request``, which the caller must own.

    Removes what a killed process left. Raises UserError where the folder is that of another request.
    """
    if request.resize is not None:
        require_damage_check()
    out, record = request.folder, _describe(request, splits)
    remove_leftovers(out)
    _require_same(out, record)
    before = _read_indexes(out)
    has_moved = request.resize is None and before is not None and _digest_places(before) != _digest_places(splits)
    is_done = before is not None and not has_moved and is_complete(out)
    removed, images = 0, 0
    if request.resize is not None and not is_done:
        removed = _remove_changed(out)
        images = sum(len(rows) for split, index in _pair(splits) for rows, _ in missing_shards(index, out, split))
    return Work(request, splits, record, is_done, has_moved, removed, images)


def finish(work: Work, *, executor: Executor | None = None, written: Callable[[int], None] = lambda _: None) -> None:
    """Write the missing shards and then both indexes.

    Args:
        work: from `begin`.
        executor: processes that share the work; None: this process does it.
        written: called with the number of images that are written.

    Raises:
        UserError: an image cannot be decoded. The message lists all such images, and no index is written.
    """
    out, splits = work.request.folder, work.splits
    if work.request.resize is not None:
        splits = _write_shards(work, executor, written)
    for split, index in _pair(splits):
        write_index(index, index_file(out, split))
    archives = {split: describe_archives(out, index) for split, index in _pair(splits)}
    _write_record(out, work.record | {ARCHIVES: archives})


def _describe(request: Request, splits: Splits) -> dict[str, Any]:
    """Return everything that the result depends on."""
    train, val = splits
    return {
        "format": FORMAT_VERSION,
        "source": str(request.source_folder.resolve()),
        "train images": train.fingerprint,
        "val images": val.fingerprint,
        **{name: getattr(request, name) for name in ("resize", "quality", "classes", "per_class", "seed")},
        "encoder": encoder() if request.resize else None,
    }


def _require_same(out: Path, record: dict[str, Any]) -> None:
    """Write the record into a new folder; raise UserError where the folder has another one."""
    if not (out / REQUEST).exists():
        _write_record(out, record)
    before = read_request(out)
    if changes := [
        f"{name} was {before.get(name)}, now {now}" for name, now in record.items() if before.get(name) != now
    ]:
        remedy = "Choose another --out, or remove the folder."
        raise UserError(f"{out} was begun in another way: {'; '.join(changes)}.\n{remedy}")


def _write_record(out: Path, record: dict[str, Any]) -> None:
    write_text(out / REQUEST, json_text(record, indent=2) + "\n")


def _read_indexes(out: Path) -> Splits | None:
    """Return the indexes in ``out``, or None where one is missing or damaged."""
    try:
        return read_index(index_file(out, "train")), read_index(index_file(out, "val"))
    except UserError:
        return None


def _digest_places(splits: Splits) -> list[str]:
    return [places_digest(index) for index in splits]


def _remove_changed(out: Path) -> int:
    """Remove the changed shards. Return the number of changed and missing ones."""
    shards = [*find_changed_archives(out, "train"), *find_changed_archives(out, "val")]
    for path in shards:
        path.unlink(missing_ok=True)
    return len(shards)


def _write_shards(work: Work, executor: Executor | None, written: Callable[[int], None]) -> Splits:
    """Write the missing shards and return the index of all."""
    request, out = work.request, work.request.folder
    write_text(out / CLASS_FILES[0], "".join(f"{name}\n" for name in work.splits[0].classes))
    how = {"short_side": request.resize or 0, "quality": request.quality}
    jobs = (shard for split, index in _pair(work.splits) for shard in create_shards(index, out, split, **how))
    done, failures = 0, []
    for shard in as_they_finish(write_shard, jobs, executor, JOBS_PER_WORKER * request.workers):
        done += shard.images
        written(done)
        failures += shard.failures
    if failures:
        listed = "".join(f"\n  {failure}" for failure in sorted(failures))
        raise UserError(
            f"{len(failures)} images cannot be used, so no index was written:{listed}\n"
            f"Run `python -m backbones verify {request.source}`, then `prepare` into a new folder."
        )
    train, val = (_index_shards(index, out, split, executor) for split, index in _pair(work.splits))
    return train, val


def _pair(splits: Splits) -> Iterator[tuple[Split, Index]]:
    yield from zip(("train", "val"), splits, strict=True)


def _index_shards(index: Index, out: Path, split: Split, executor: Executor | None) -> Index:
    """Return the index of the shards that were written from ``index``."""
    found = scan_shards(out, shard_files(index, out, split), index.classes, executor, split=split)
    if found.labels.tolist() != index.labels.tolist():
        raise UserError(f"{out}: the shards of {split} are not those that were written.\nRemove the folder.")
    return found
