"""The images of prediction are those of evaluation; those that cannot be read cost nothing but themselves."""

from pathlib import Path

import pytest
import torch

from backbones.data.loader import EvalLoader
from backbones.data.tolerant import TolerantLoader
from backbones.dataset.loose import find_files, index_files
from backbones.dataset.sources.folder import scan_folder
from backbones.recipe import Preprocess

CPU = torch.device("cpu")
PROTOCOLS = [
    Preprocess(),
    Preprocess("timm", 0.9, "bicubic", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    Preprocess("full", mean=(0.5, 0.5, 0.5)),
]


def load(names: list[str], preprocess: Preprocess = PROTOCOLS[0], *, batch_size: int = 3) -> TolerantLoader:
    index = index_files(find_files(names))
    return TolerantLoader(index, img_size=32, preprocess=preprocess, batch_size=batch_size, workers=2, device=CPU)


@pytest.mark.parametrize("preprocess", PROTOCOLS, ids=lambda each: each.protocol)
def test_images_are_those_of_evaluation_to_the_bit(small, preprocess):
    index = scan_folder(small)
    expected = EvalLoader(index, img_size=32, preprocess=preprocess, batch_size=8, loader="reference")
    (whole,) = expected
    found = torch.cat([batch.images for batch in load([str(small)], preprocess)])
    assert torch.equal(found, whole.images)


def test_bad_images_are_told_with_their_reason_and_the_others_stay(small: Path):
    files = sorted(small.rglob("*.jpg"))
    files[1].write_bytes(b"")
    files[4].write_bytes(b"<html>")
    batches = list(load([str(small)]))
    assert [batch.rows for batch in batches] == [[0, 2], [3, 5], [6, 7]]
    assert [batch.bad for batch in batches] == [
        {1: "it is empty"},
        {4: "it is not an image of a known format"},
        {},
    ]
    assert [len(batch.images) for batch in batches] == [2, 2, 2]


def test_a_batch_of_bad_images_alone_has_none(tmp_path):
    for name in ("a.jpg", "b.png"):
        (tmp_path / name).write_bytes(b"no")
    (batch,) = load([str(tmp_path)])
    assert (batch.rows, len(batch.bad), batch.images.numel()) == ([], 2, 0)


def test_a_link_that_points_nowhere_and_a_file_that_is_gone_are_bad(small: Path):
    (small / "lost.jpg").symlink_to("nowhere.jpg")
    loader = load([str(small)], batch_size=100)
    sorted(small.rglob("*.jpg"))[0].unlink()
    (batch,) = loader
    assert sorted(batch.bad.values()) == ["no such file or directory"] * 2
