"""The members of a tar archive, read in place: only headers are read, and nothing is unpacked."""

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from backbones.dataset.index import find_repeated, some
from backbones.errors import UserError

COMPRESSED = {b"\x1f\x8b": "gunzip", b"BZh": "bunzip2", b"\xfd7zXZ\x00": "unxz", b"\x28\xb5\x2f\xfd": "unzstd"}
"""First bytes of a compressed file, and the program that decompresses it."""

MAX_PADDING_BYTES = 2**20
"""Limit of the zeros at the end. tar fills its last record of 10,240 bytes, or more with a blocking factor."""


class Member(NamedTuple):
    """One plain file in an archive."""

    name: str
    offset: int
    """Start of its bytes in the outermost archive."""
    length: int
    """In bytes."""


def members(file: Path, inside: Member | None = None) -> list[Member]:
    """Return the plain files in the archive ``file``, or in its member ``inside``, itself an archive.

    Raises UserError where the archive is compressed, truncated or damaged, or where a member is a link, a device, is
    repeated, or has a name that leads out of the archive.
    """
    where = f"{inside.name} in {file}" if inside else str(file)
    with file.open("rb") as opened:
        window = _Window(opened, inside.offset, inside.length) if inside else opened
        _refuse_compressed(window, where)
        try:
            found = list(_read_members(window, where))
        except (tarfile.TarError, ValueError, EOFError, RecursionError) as error:
            raise _damage_error(where, str(error)) from None
    base = inside.offset if inside else 0
    if twice := find_repeated(member.name for member in found):
        raise UserError(f"{where} holds two members of the same name: {some(twice)}.")
    return [member._replace(offset=base + member.offset) for member in found]


def _read_members(window: "BinaryIO | _Window", where: str) -> Iterator[Member]:
    size = window.seek(0, io.SEEK_END)
    window.seek(0)
    with tarfile.open(fileobj=window, mode="r:") as archive:  # pyright: ignore[reportArgumentType]
        for info in archive:
            if info.offset_data + info.size > size:
                raise _damage_error(where, f"{info.name} goes on after the end")
            if not info.isdir():
                _require_plain(info, where)
                yield Member(info.name, info.offset_data, info.size)
        _require_end(window, archive.offset, where)


def _require_end(window: "BinaryIO | _Window", start: int, where: str) -> None:
    """Raise UserError unless there is a block of zeros at ``start``, followed by nothing but a few more zeros.

    tarfile stops without an error at a damaged header, and at the first zeros, which may be a gap in the archive.
    """
    window.seek(start)
    rest = window.read(MAX_PADDING_BYTES + 1)
    zeros = len(rest) - len(rest.lstrip(b"\0"))
    if zeros < tarfile.BLOCKSIZE:
        raise _damage_error(where, f"no end and no sound header at byte {start}")
    if zeros < len(rest):
        again = f"it ends at byte {start} and goes on at byte {start + zeros}"
        raise _damage_error(where, f"{again}: a part is missing, or archives were joined")
    if zeros > MAX_PADDING_BYTES:
        many = f"more than {MAX_PADDING_BYTES:,} zeros from byte {start} on"
        raise _damage_error(where, f"{many}: the download was not completed")


def _require_plain(info: tarfile.TarInfo, where: str) -> None:
    if not info.isreg() or info.issparse():
        raise UserError(f"{where}: {info.name!r} is not a plain file.\nPack the images themselves, without links.")
    if info.name.startswith("/") or ".." in info.name.split("/"):
        raise UserError(f"{where}: the name {info.name!r} leads out of the archive: it may be hostile.")


def _refuse_compressed(window: "BinaryIO | _Window", where: str) -> None:
    begin = window.read(8)
    for magic, program in COMPRESSED.items():
        if begin.startswith(magic):
            raise UserError(
                f"{where} is compressed: its images cannot be read in place.\nDecompress it with {program}."
            )


def _damage_error(where: str, reason: str) -> UserError:
    return UserError(f"{where} is truncated or not a tar archive: {reason}.\nDownload or copy it again.")


class _Window(io.RawIOBase):
    """Part of a file that is an archive of its own; nothing beyond it is read."""

    def __init__(self, file: BinaryIO, start: int, length: int) -> None:
        self.file, self.start, self.length, self.place = file, start, length, 0

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self.place = offset if whence == io.SEEK_SET else self.length + offset
        return self.place

    def tell(self) -> int:
        return self.place

    def read(self, size: int = -1) -> bytes:
        left = max(0, self.length - self.place)
        self.file.seek(self.start + self.place)
        content = self.file.read(left if size < 0 else min(size, left))
        self.place += len(content)
        return content
