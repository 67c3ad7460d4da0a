"""The manifest of a checkpoint folder, with size, sha256 and tensors of each file: damage is found before loading."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from backbones.errors import UserError
from backbones.files import json_text

MANIFEST = "manifest.json"

SCHEMA = 4
"""Version of the checkpoint folder. From 2 on it has a manifest, from 3 on the manifest lists tensors."""

OTHERS = " --resume auto takes the newest sound checkpoint."

Record = dict[str, Any]
"""Size in ``bytes`` and ``sha256`` of a file."""


def write_content(file: Path, content: bytes | memoryview) -> Record:
    """Write a file, flush it, read it from the disk again, and return its record.

    Raises OSError where the disk gives back something else than was written.
    """
    written = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    with file.open("xb") as opened:
        opened.write(content)
        opened.flush()
        os.fsync(opened.fileno())
        if hasattr(os, "posix_fadvise"):  # ask the disk, not the copy in memory
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if measure(file) != written:
        raise OSError(f"{file.name} was not read back as it was written: the disk is failing")
    return written


def write_manifest(
    folder: Path, files: Mapping[str, Record], tensors: Mapping[str, dict[str, str]], about: Mapping[str, Any]
) -> None:
    """Write the manifest of a folder whose files are written.

    Args:
        folder: the checkpoint folder.
        files: record of each file.
        tensors: `describe_tensors` of each file.
        about: what else to say about the checkpoint.
    """
    content = {"schema": SCHEMA, **about, "files": files, "tensors": tensors}
    write_content(folder / MANIFEST, (json_text(content, indent=1) + "\n").encode())


def verify_checkpoint(folder: Path) -> None:
    """Raise UserError unless every file of a checkpoint is as its manifest says; version 0.1 wrote no manifest."""
    for name, recorded in _read(folder).get("files", {}).items():
        found = measure(folder / name) if (folder / name).is_file() else None
        if found != recorded:
            what = f"has {found['bytes']} bytes instead of {recorded['bytes']}" if found else "is missing"
            if found and found["bytes"] == recorded["bytes"]:
                what = "has other content than was written (its sha256 differs)"
            raise damaged(folder, f"{name} {what}")


def verify_tensors(folder: Path, name: str, value: Any) -> None:
    """Raise UserError unless ``value``, which was read from the file ``name``, has every tensor of the manifest."""
    expected, found = _read(folder).get("tensors", {}).get(name), describe_tensors(value)
    if expected is not None and expected != found:
        wrong = sorted(key for key in expected.keys() | found.keys() if expected.get(key) != found.get(key))
        raise damaged(
            folder,
            f"{wrong[0]} in {name} is {found.get(wrong[0], 'missing')}, and was {expected.get(wrong[0], 'not there')}"
            f" when it was written ({len(wrong)} such tensors)",
        )


def damaged(folder: Path, what: str) -> UserError:
    """Return the error about a damaged checkpoint."""
    return UserError(f"{folder} is damaged: {what}.{OTHERS}")


def describe_tensors(value: Any) -> dict[str, str]:
    """Return ``{name: "float32 [64, 3]"}`` for every tensor in nested dictionaries and lists."""
    return {name: f"{str(tensor.dtype)[6:]} {list(tensor.shape)}" for name, tensor in named_tensors(value)}


def named_tensors(value: Any, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield every tensor in nested dictionaries and lists with its place, such as ``optimizer.state.0.momentum``."""
    if isinstance(value, Tensor):
        yield prefix, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from named_tensors(item, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(value, (list, tuple)):
        for key, item in enumerate(value):
            yield from named_tensors(item, f"{prefix}.{key}" if prefix else str(key))


def hash_of(tensors: Mapping[str, Tensor]) -> str:
    """Return the sha256 of the values of named tensors."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(name.encode() + tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def measure(file: Path) -> Record:
    """Return size and sha256 of a file."""
    with file.open("rb") as opened:
        return {"bytes": file.stat().st_size, "sha256": hashlib.file_digest(opened, "sha256").hexdigest()}


def _read(folder: Path) -> dict[str, Any]:
    """Return the manifest of a folder; {} where it has none."""
    if not (folder / MANIFEST).is_file():
        return {}
    try:
        content = json.loads((folder / MANIFEST).read_text())
        return {**content, "files": dict(content["files"])}
    except (ValueError, KeyError, TypeError):
        raise damaged(folder, f"{MANIFEST} cannot be read") from None
