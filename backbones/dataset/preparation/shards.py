"""WebDataset shards of an index: the images of each shard, and one shard written at a time."""

import io
import re
import tarfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from backbones.dataset.index import Index, Split, without_ending
from backbones.dataset.place import Place
from backbones.dataset.preparation.shrink import shrink
from backbones.errors import UserError
from backbones.files import new_file

MAX_IMAGES = 1_000
"""Images in a shard."""

MAX_BYTES = 10**9
"""Bytes of the images in a shard, before they are made smaller."""


class Entry(NamedTuple):
    """One image of a shard."""

    place: Place
    shown: str
    """Name of the image in messages."""
    key: str
    label: int


class Shard(NamedTuple):
    """Everything that a process needs to write one shard."""

    file: Path
    entries: list[Entry]
    short_side: int
    quality: int


class Written(NamedTuple):
    """Result of writing a shard."""

    images: int
    failures: list[str]
    """Images that cannot be decoded, with the reason. The shard is written only without any."""


class _UnusableError(Exception):
    """Error that stops the writing of a shard: one of its images cannot be decoded."""


def shard_ranges(index: Index) -> list[range]:
    """Return the rows of each shard, in the order of the index: class after class."""
    ranges: list[range] = []
    start = size = 0
    for row, length in enumerate(index.lengths.tolist()):
        if row > start and (row - start == MAX_IMAGES or size + length > MAX_BYTES):
            ranges.append(range(start, row))
            start, size = row, 0
        size += length
    return [*ranges, range(start, len(index))] if len(index) > start else ranges


def create_shards(index: Index, folder: Path, split: Split, *, short_side: int, quality: int) -> Iterator[Shard]:
    """Yield the shards that are missing in ``folder``; UserError where two images would have the same key."""
    keys = shard_keys(index)
    for rows, file in missing_shards(index, folder, split):
        labels = index.labels[rows.start : rows.stop].tolist()
        entries = [
            Entry(index.place(row), index.describe(row), keys[row], label)
            for row, label in zip(rows, labels, strict=True)
        ]
        yield Shard(file, entries, short_side, quality)


def missing_shards(index: Index, folder: Path, split: Split) -> list[tuple[range, Path]]:
    """Return the rows and the file of each shard that is missing in ``folder``."""
    numbered = zip(shard_ranges(index), shard_files(index, folder, split), strict=True)
    return [(rows, file) for rows, file in numbered if not file.exists()]


def shard_files(index: Index, folder: Path, split: Split) -> list[Path]:
    """Return the file of each shard."""
    return [folder / f"{split}-{number:06d}.tar" for number in range(len(shard_ranges(index)))]


def shard_keys(index: Index) -> list[str]:
    """Return CLASS/NAME of each image as a WebDataset key, in which a dot would end the name.

    Raises UserError where two images of a class differ only in their ending or in such characters.
    """
    rows: dict[str, int] = {}
    for row, name in enumerate(index.names):
        parts = without_ending(name).split("/")
        key = f"{_plain(parts[0])}/{_plain('_'.join(parts[1:]))}"
        if key in rows:
            raise UserError(
                f"{index.describe(rows[key])} and {index.describe(row)} would both be {key}.\nRename one of them."
            )
        rows[key] = row
    return list(rows)


def write_shard(shard: Shard) -> Written:
    """Write one shard, whole or not at all. Its bytes depend only on its images and options."""
    failures: list[str] = []
    with suppress(_UnusableError), new_file(shard.file) as opened:
        with tarfile.open(fileobj=opened, mode="w", format=tarfile.GNU_FORMAT) as archive:
            for entry in shard.entries:
                try:
                    image = shrink(_read(entry.place), shard.short_side, shard.quality)
                except UserError as error:
                    failures.append(f"{entry.shown}: {error}")
                    continue
                _add(archive, f"{entry.key}.jpg", image)
                _add(archive, f"{entry.key}.cls", str(entry.label).encode())
        if failures:
            raise _UnusableError
    return Written(len(shard.entries), failures)


def _plain(text: str) -> str:
    """Replace everything but letters, digits, hyphens and underscores."""
    return re.sub(r"[^\w-]", "_", text)


def _read(place: Place) -> bytes:
    try:
        with Path(place.path).open("rb") as opened:
            opened.seek(place.offset)
            content = opened.read(place.length)
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}") from error
    if len(content) != place.length or not content:
        raise UserError("empty" if not place.length else f"{len(content)} bytes are left of {place.length}")
    return content


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)  # owner and time stay zero
    info.size = len(content)
    archive.addfile(info, io.BytesIO(content))
