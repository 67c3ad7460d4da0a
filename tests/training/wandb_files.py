"""Reader of W&B's .wandb files: a log of LevelDB's format with one protobuf record for each thing that was logged."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wandb.proto.wandb_internal_pb2 import Record

BLOCK, HEADER, FILE_HEADER = 32768, 7, 7
"""Sizes in bytes; see LevelDB's doc/log_format.md. W&B puts a header of its own before the first record."""


def read_rows(run_folder: Path) -> list[dict[str, Any]]:
    """Return the rows that every W&B session of a run folder wrote, in order, without what W&B adds."""
    rows: list[dict[str, Any]] = []
    for file in sorted(run_folder.glob("wandb/*run-*/*.wandb")):
        for content in _records(file.read_bytes()):
            record = Record.FromString(content)
            if record.WhichOneof("record_type") == "history":
                items = {item.key or "/".join(item.nested_key): item.value_json for item in record.history.item}
                rows.append({name: json.loads(text) for name, text in items.items() if name[0] != "_"})
    return rows


def _records(content: bytes) -> Iterator[bytes]:
    position, parts = FILE_HEADER, b""
    while position + HEADER <= len(content):
        if BLOCK - position % BLOCK < HEADER:
            position += BLOCK - position % BLOCK
            continue
        _, length, kind = struct.unpack_from("<IHB", content, position)
        if kind == 0:
            return
        position += HEADER
        parts += content[position : position + length]
        position += length
        if kind in (1, 4):  # whole, or the last part
            yield parts
            parts = b""
