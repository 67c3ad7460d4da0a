"""The kinds of image that DALI must not decode, against what DALI and PIL make of the catalogue."""

import numpy as np
import pytest
from nvidia.dali import fn, types
from nvidia.dali.pipeline import Pipeline

from backbones.dataset.encoded import decode, read_header
from tests.dataset.odd_files import catalogue

FILES = catalogue()

MAX_DIFFERENCE = 1.5
"""Mean difference in levels of 255 below which two decoders see the same picture."""


def decoded_by_dali(data: bytes) -> np.ndarray | None:
    """Return the pixels, or None where DALI refuses the file."""
    pipeline = Pipeline(batch_size=1, num_threads=1, device_id=None)
    with pipeline:
        stored = types.Constant(np.frombuffer(data, np.uint8), device="cpu")
        pipeline.set_outputs(fn.decoders.image(stored, device="cpu", adjust_orientation=False))
    try:
        return np.asarray(pipeline.run()[0].as_cpu().at(0)).astype(int)
    except RuntimeError:
        return None


@pytest.fixture(scope="module")
def differing() -> set[str]:
    """Names of the files that DALI refuses, or reads as another picture than PIL."""
    names = set()
    for name, data in FILES.items():
        ours, theirs = np.asarray(decode(data)).astype(int), decoded_by_dali(data)
        if theirs is None or ours.shape != theirs.shape or np.abs(ours - theirs).mean() > MAX_DIFFERENCE:
            names.add(name)
    return names


def test_every_file_that_dali_reads_otherwise_is_unusual(differing: set[str]) -> None:
    assert {name for name in differing if not read_header(FILES[name]).is_unusual} == set()
    assert {"tiff orientation 6.tif", "jpeg CMYK without Adobe.jpg", "ppm P6 15.ppm", "tiff LAB.tif"} <= differing


@pytest.mark.parametrize(
    "start", ["jpeg 4", "jpeg L", "jpeg RGB", "jpeg orientation", "png R", "png P", "png L", "bmp RGB.", "webp RGB"]
)
def test_usual_files_are_left_to_dali(start: str) -> None:
    chosen = {name: read_header(data).is_unusual for name, data in FILES.items() if name.startswith(start)}
    assert chosen == dict.fromkeys(chosen, False)
    assert chosen


def test_an_animation_is_unusual() -> None:
    assert read_header(FILES["webp animated.webp"]).is_unusual
    assert read_header(FILES["png animated.png"]).is_unusual


@pytest.mark.parametrize("kind", ["Adobe 0", "Adobe 2", "of components R G B", "kept RGB", "CMYK Adobe 2"])
def test_colours_that_decoders_may_convert_otherwise_are_left_to_pil(kind: str) -> None:
    assert read_header(FILES[f"jpeg {kind}.jpg"]).is_unusual
