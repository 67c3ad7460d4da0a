"""Place of the bytes of an image, and how they are read."""

import errno
import os
from typing import NamedTuple

from backbones.errors import UserError

MAX_BYTES = 32 * 2**20
"""Larger files are refused without being read."""

PERMANENT_ERRORS = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.EACCES})
"""Permanent file errors: a retry does not help."""


class BadImageError(Exception):
    """Error for a file that is not an image, is damaged or is too large; its text is the reason."""


class Place(NamedTuple):
    """Position of the bytes of an image in a file."""

    path: str
    offset: int
    length: int
    """In bytes."""

    @property
    def is_member(self) -> bool:
        """True when the image is part of an archive."""
        return is_archive(self.path)

    def __str__(self) -> str:
        return f"{self.path} at byte {self.offset}" if self.is_member else self.path


def is_archive(path: str) -> bool:
    """Return whether the name of a file ends in .tar, in lower or upper case."""
    return path[-4:].lower() == ".tar"


def read_bytes(place: Place) -> bytes:
    """Return the bytes of one image.

    Raises BadImageError where the file has changed since it was indexed, and UserError where the machine fails rather
    than the file: a disk error, too many open files.
    """
    if place.length > MAX_BYTES:
        raise BadImageError(f"it has {place.length} bytes, more than {MAX_BYTES // 2**20} MB")
    try:
        file = os.open(place.path, os.O_RDONLY)
        try:
            data = os.pread(file, place.length + (not place.is_member), place.offset)
        finally:
            os.close(file)
    except OSError as error:
        if error.errno in PERMANENT_ERRORS:
            raise BadImageError(str(error.strerror).lower()) from error
        raise UserError(f"{place} cannot be read at the moment: {str(error.strerror).lower()}.") from error
    if len(data) != place.length:
        raise BadImageError(f"it no longer has the {place.length} bytes that it had when it was indexed")
    return data
