"""Images without classes, named one by one or by their folders."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from backbones.dataset.index import SUFFIXES, Index, Strings
from backbones.dataset.sources.folder import list_images
from backbones.errors import UserError


class File(NamedTuple):
    """File that was named, or found in a folder."""

    path: str
    length: int
    """In bytes; -1 for a symbolic link that points nowhere."""


def find_files(names: Sequence[str]) -> list[File]:
    """Return the named files, whatever their endings, and the images in and below the named folders, sorted by path.

    Links to folders are not followed, and names that begin with a dot are ignored, as in class folders.

    Raises:
        UserError: there is no such file, it is not a regular file, or a folder has no images or cannot be read.
    """
    return [file for name in names for file in _find(name)]


def index_files(files: Sequence[File]) -> Index:
    """Return an index of files in the order given, all of one class without a name."""
    count, paths = len(files), Strings.of(file.path for file in files)
    return Index(
        root=Path(),
        classes=("",),
        names=paths,
        files=paths,
        numbers=np.arange(count, dtype=np.int32),
        offsets=np.zeros(count, np.int64),
        lengths=np.array([file.length for file in files], np.int64),
        labels=np.zeros(count, np.int64),
        fingerprint="",
    )


def _find(name: str) -> Iterator[File]:
    path = Path(name)
    try:
        if path.is_dir():
            yield from _list_folder(name)
        elif path.is_file():
            yield File(name, path.stat().st_size)
        else:
            raise UserError(_explain_missing(path))
    except OSError as error:
        raise UserError(f"{error.filename or name}: {error.strerror}.") from None


def _list_folder(folder: str) -> list[File]:
    listing = list_images(folder)
    found = [(image.path, image.length) for image in listing.images] + [(path, -1) for path in listing.broken]
    if not found:
        rest = f" ({len(listing.others)} other files)" if listing.others else ""
        raise UserError(f"{folder} holds no images{rest}. Their names end in {', '.join(sorted(SUFFIXES))}.")
    return [File(os.path.join(folder, path), length) for path, length in sorted(found)]  # noqa: PTH118  # keeps bytes


def _explain_missing(path: Path) -> str:
    if str(path) == "-":
        return "-: images are read from files and folders, not from standard input."
    if path.exists():
        return f"{path} is neither a regular file nor a folder."
    if path.is_symlink():
        return f"{path} is a symbolic link that points nowhere."
    near = [str(other) for other in path.parent.glob(f"{path.name[:3]}*")][:3] if path.parent.is_dir() else []
    return f"there is no {path}." + (f" Did you mean {', '.join(near)}?" if near else "")
