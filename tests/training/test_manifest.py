"""A manifest finds every change of a checkpoint folder."""

import json
import os

import pytest
import torch

from backbones.errors import UserError
from backbones.training.manifest import (
    MANIFEST,
    describe_tensors,
    verify_tensors,
    write_content,
    write_manifest,
)


def test_tensors_are_named_by_their_place_with_type_and_shape():
    value = {"a": [torch.zeros(2, 3), {"b": torch.zeros(1, dtype=torch.int64)}], "c": 5, 7: (torch.zeros(()),)}
    assert describe_tensors(value) == {"a.0": "float32 [2, 3]", "a.1.b": "int64 [1]", "7.0": "float32 []"}


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (
            {"a": torch.zeros(2)},
            r"b in state.pt is missing, and was float32 \[3\] when",
        ),
        ({"a": torch.zeros(2), "b": torch.zeros(4)}, r"b in state.pt is float32 \[4\], and was float32 \[3\]"),
        ({"a": torch.zeros(2), "b": torch.zeros(3).half()}, r"b in state.pt is float16 \[3\]"),
        (
            {"a": torch.zeros(2), "b": torch.zeros(3), "c": torch.zeros(1)},
            r"c in state.pt is float32 \[1\], and was",
        ),
    ],
)
def test_a_tensor_that_is_lost_or_changed_is_named(tmp_path, found, message):
    written = {"a": torch.zeros(2), "b": torch.zeros(3)}
    write_manifest(tmp_path, {}, {"state.pt": describe_tensors(written)}, {})
    verify_tensors(tmp_path, "state.pt", written)
    with pytest.raises(UserError, match=message):
        verify_tensors(tmp_path, "state.pt", found)


def test_a_manifest_that_lists_no_tensors_asks_for_none(tmp_path):
    (tmp_path / MANIFEST).write_text(json.dumps({"schema": 2, "files": {}}))
    verify_tensors(tmp_path, "state.pt", {"a": torch.zeros(2)})


def test_a_disk_that_returns_other_bytes_is_an_error(tmp_path, monkeypatch):
    flush = os.fsync

    def flush_wrongly(descriptor: int) -> None:
        flush(descriptor)
        (tmp_path / "file").write_bytes(b"conteMt")

    monkeypatch.setattr(os, "fsync", flush_wrongly)
    with pytest.raises(OSError, match="file was not read back as it was written"):
        write_content(tmp_path / "file", b"content")
