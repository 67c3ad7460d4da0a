"""Files and folders that appear whole or not at all, the lock of a folder, and JSON without NaN."""

import fcntl
import json
import math
import os
import secrets
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from backbones.errors import UserError

PARTIAL = ".partial"
"""Suffix of a file or folder that is being written."""

OLD = ".old"
"""Suffix of a folder while a new one takes its place."""

LOCK = ".lock"
"""File that the process which owns a folder holds."""


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file that replaces ``path`` at the end of the block; after an error ``path`` is as it was.

    The content and the folder are on the disk when the block has ended.
    """
    partial = _partial(path)
    try:
        with partial.open("xb") as opened:
            yield opened
            opened.flush()
            os.fsync(opened.fileno())
        partial.replace(path)
        _flush(path.parent)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def new_folder(path: Path, *, kept: int = 0) -> Iterator[Path]:
    """Make a folder that replaces ``path`` at the end of the block; after an error ``path`` is as it was.

    Its files, the folder and its parent are on the disk when the block has ended. The ``kept`` folders that were there
    before are ``path``-1 (the newest), ``path``-2 and so on. A kill between the two last renames leaves no ``path``,
    but the folder that was there as ``path``-1, or as ``path`` + ``.old`` where none are kept.
    """
    partial = _partial(path)
    partial.mkdir(parents=True)
    try:
        yield partial
        for found in (*partial.rglob("*"), partial):
            _flush(found)
        _replace_folder(partial, path, kept)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all. Names that are not valid text keep their bytes."""
    with new_file(path) as opened:
        opened.write(os.fsencode(text))


def read_text(path: Path) -> str:
    """Return the content of a text file. Bytes that are not valid text survive, as in names of files."""
    return os.fsdecode(path.read_bytes())


def remove_leftovers(folder: Path) -> None:
    """Remove what killed processes left half written in ``folder``, which the caller must own."""
    for path in folder.glob(f"*{PARTIAL}"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


@contextmanager
def lock(folder: Path, use: str) -> Iterator[None]:
    """Own ``folder`` during the block.

    Raises UserError "FOLDER ``use`` (process PID on HOST)" where another process owns it.
    """
    with (folder / LOCK).open("a+") as opened:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            opened.seek(0)
            owner = opened.read().strip() or "an unknown process"
            raise UserError(f"{folder} {use} ({owner}).\nWait for it, stop it, or name another folder.") from None
        opened.truncate(0)
        opened.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        opened.flush()
        yield


def require_output_folder(option: str, folder: str | Path) -> None:
    """Raise UserError where ``folder`` cannot be written or made; nothing is left behind."""
    existing = Path(folder).absolute()
    try:
        existing = next(path for path in (existing, *existing.parents) if path.exists() or path.is_symlink())
        with tempfile.TemporaryDirectory(dir=existing, prefix=".write-test-"):
            pass
    except OSError as error:
        raise UserError(f"{option} {folder}: {existing} cannot be written: {error.strerror}.") from None


def require_output_file(option: str, file: str | Path | None) -> None:
    """Raise UserError where ``file`` cannot be written, before any work is done for it; None is no file."""
    if file is None:
        return
    parent = Path(file).absolute().parent
    if not parent.is_dir():
        raise UserError(f"{option} {file}: there is no folder {Path(file).parent}.")
    if Path(file).is_dir():
        raise UserError(f"{option} {file} is a folder; name a file.")
    require_output_folder(option, parent)


def json_text(value: Any, *, indent: int | None = None) -> str:
    """Return ``value`` as JSON. NaN and infinities become null: JSON has neither."""
    return json.dumps(_finite(value), indent=indent, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _partial(path: Path) -> Path:
    """Return a name beside ``path`` that no other process uses."""
    return path.with_name(f"{path.name}.{secrets.token_hex(4)}{PARTIAL}")


def earlier(path: Path, number: int) -> Path:
    """Return the name of the ``number``-th folder that was there before ``path``, from 1 on."""
    return path.with_name(f"{path.name}-{number}")


def _replace_folder(new: Path, path: Path, kept: int) -> None:
    old = path.with_name(path.name + OLD)
    shutil.rmtree(old, ignore_errors=True)
    chain = [path, *(earlier(path, number) for number in range(1, kept + 1)), old]
    free = next((number for number, name in enumerate(chain) if not name.exists()), len(chain) - 1)
    for number in range(free, 0, -1):  # a gap is filled, and what is older stays
        chain[number - 1].rename(chain[number])
    new.rename(path)
    _flush(path.parent)
    shutil.rmtree(old, ignore_errors=True)


def _flush(path: Path) -> None:
    """Wait until a file, or the list of names in a folder, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
