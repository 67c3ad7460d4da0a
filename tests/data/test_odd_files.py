"""One meaning for one file: every loader, and `prepare --resize`, see PIL's picture of each file in the catalogue."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from backbones.data.loader import EvalLoader
from backbones.data.tolerant import TolerantLoader
from backbones.dataset.encoded import decode
from backbones.dataset.index import Index
from backbones.dataset.preparation.shrink import shrink
from backbones.dataset.sources.folder import scan_folder
from backbones.dataset.verification.look import look_at
from backbones.recipe import LoaderName, Preprocess
from tests.dataset.odd_files import catalogue

FILES = catalogue()
SIZE = 32
MAX_DIFFERENCE = 1.5
"""Mean difference in levels of 255."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Index:
    root = tmp_path_factory.mktemp("odd")
    (root / "a").mkdir()
    for name, data in FILES.items():
        (root / "a" / name.replace(".jp2", ".jpg")).write_bytes(data)
    return scan_folder(root)


def loaded(index: Index, loader: LoaderName) -> dict[str, np.ndarray]:
    """Return the picture of each file, squashed to a square."""
    batches = EvalLoader(index, img_size=SIZE, preprocess=Preprocess("full"), batch_size=16, loader=loader, workers=1)
    pixels = np.concatenate([batch.images.permute(0, 2, 3, 1).numpy() * 255 for batch in batches])
    return {Path(name).name: image for name, image in zip(index.names, pixels, strict=True)}


def test_the_catalogue_is_large(folder: Index) -> None:
    assert len(folder) == len(FILES) > 140


@pytest.mark.parametrize("loader", ["dali", "reference"])
def test_a_loader_sees_the_picture_that_pil_sees(folder: Index, loader: LoaderName) -> None:
    found = loaded(folder, loader)
    for name, data in FILES.items():
        expected = np.asarray(decode(data).resize((SIZE, SIZE), Image.Resampling.BILINEAR)).astype(float)
        difference = np.abs(found[name.replace(".jp2", ".jpg")] - expected).mean()
        assert difference <= MAX_DIFFERENCE, name


def test_predict_sees_what_the_reference_sees(folder: Index) -> None:
    how = {"img_size": SIZE, "preprocess": Preprocess("full"), "batch_size": 16, "workers": 1}
    batches = list(TolerantLoader(folder, device=torch.device("cpu"), **how))
    assert [batch.bad for batch in batches if batch.bad] == []
    found = torch.cat([batch.images for batch in batches])
    expected = torch.cat([batch.images for batch in EvalLoader(folder, loader="reference", **how)])
    assert torch.equal(found, expected)


def test_pil_as_image_folder_uses_it_sees_the_same_but_for_16_bit_grey() -> None:
    for name, data in FILES.items():
        image = Image.open(io.BytesIO(data))
        if not image.mode.startswith("I"):
            assert image.convert("RGB").tobytes() == decode(data).tobytes(), name


def test_resized_files_show_the_same_picture() -> None:
    for name, data in FILES.items():
        picture, stored = decode(data), io.BytesIO()
        picture.save(stored, "JPEG", quality=100)
        lost, found = (
            np.abs(np.asarray(Image.open(file).convert("RGB")).astype(int) - np.asarray(picture)).mean()
            for file in (stored, io.BytesIO(shrink(data, 1000, quality=100)))
        )
        assert found <= lost, name


def test_verify_finds_every_file_sound_and_counts_those_left_to_pil(folder: Index) -> None:
    looks = [look_at(folder.place(row), folder.names[row]) for row in range(len(folder))]
    assert {folder.names[row]: look.reason for row, look in enumerate(looks) if look.reason} == {}
