"""Tests of the facts read from an image file before it is decoded, against PIL."""

import io
import struct
import zlib

import numpy as np
import pytest
from nvidia.dali import fn
from nvidia.dali.pipeline import Pipeline
from PIL import Image

from backbones.dataset.encoded import ImageHeader, decode, is_whole, read_header
from backbones.dataset.place import BadImageError


def encoded(kind: str = "JPEG", size: tuple[int, int] = (83, 61), mode: str = "RGB", **options) -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noise).convert(mode).save(stream, format=kind, **options)
    return stream.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG file whose header is right and whose pixels are missing."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk)) + b"IDAT"


def jpeg_header(width: int, height: int) -> bytes:
    """A JPEG file of one byte of pixels that claims to be of any size."""
    data = bytearray(encoded(size=(16, 16)))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    return bytes(data)


EXIF = Image.Exif()
EXIF[0x0112] = 6


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "TIFF", "WEBP", "PPM"])
def test_size_and_kind_are_what_pil_says(kind: str) -> None:
    data = encoded(kind)
    assert read_header(data) == ImageHeader(kind, 61, 83, is_unusual=kind in ("TIFF", "PPM"))


@pytest.mark.parametrize(
    "options",
    [
        {"progressive": True},
        {"mode": "CMYK"},
        {"mode": "L"},
        {"exif": EXIF},
        {"icc_profile": b"x" * 5000},
        {"dpi": (1, 1)},
    ],
)
def test_every_flavour_of_jpeg_tells_its_size(options: dict) -> None:
    assert read_header(encoded(**options))[:3] == ("JPEG", 61, 83)


def test_the_size_is_found_behind_a_thumbnail_and_stray_bytes() -> None:
    data = encoded()
    thumbnail = encoded(size=(8, 8))
    segment = b"\xff\xe1" + struct.pack(">H", 2 + len(thumbnail)) + thumbnail
    assert read_header(data[:2] + segment + b"\x00\xff\xff" + data[3:]) == ImageHeader("JPEG", 61, 83, is_unusual=False)


@pytest.mark.parametrize("data", [png_header(20000, 20000), jpeg_header(65500, 65500), png_header(8001, 8000)])
def test_more_than_64_megapixels_are_refused_undecoded(data: bytes) -> None:
    with pytest.raises(BadImageError, match="more than 64 million"):
        read_header(data)


def test_64_megapixels_are_accepted() -> None:
    assert read_header(png_header(8000, 8000)) == ImageHeader("PNG", 8000, 8000, is_unusual=False)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"\xff", "not an image"),
        (b"<html>404</html>", "not an image"),
        (encoded("GIF"), "not an image"),
        (encoded()[:100], "header is incomplete"),
        (jpeg_header(0, 10), "0 x 10"),
    ],
)
def test_what_is_no_image_is_refused_with_the_reason(data: bytes, reason: str) -> None:
    with pytest.raises(BadImageError, match=reason):
        read_header(data)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_an_end_is_seen_and_missed(kind: str) -> None:
    data = encoded(kind)
    assert is_whole(data, kind)
    assert not is_whole(data[:-1], kind)
    assert not is_whole(data + b"x", kind)


def test_decoding_is_strict_about_a_missing_end() -> None:
    data = encoded()
    assert decode(data).size == (83, 61)
    with pytest.raises(BadImageError, match="truncated"):
        decode(data[: len(data) // 2])


def deep_grey(kind: str, mode: str = "I;16", most: int = 65_535, **options) -> bytes:
    """An image of 16-bit grey noise whose first row is black and whose last row is ``most``."""
    noise = np.random.default_rng(0).integers(0, most + 1, (61, 83))
    noise[0], noise[-1] = 0, most
    dtype = {"I;16": "<u2", "I;16B": ">u2", "I": "<i4", "F": "<f4"}[mode]
    stream = io.BytesIO()
    Image.frombytes(mode, (83, 61), noise.astype(dtype).tobytes()).save(stream, format=kind, **options)
    return stream.getvalue()


def decoded_by_dali(data: bytes) -> np.ndarray:
    pipeline = Pipeline(batch_size=1, num_threads=1, device_id=None)
    with pipeline:
        stored = fn.external_source(source=lambda: [np.frombuffer(data, np.uint8)])
        pipeline.set_outputs(fn.decoders.image(stored, device="cpu"))
    return np.asarray(pipeline.run()[0].as_cpu().at(0))


@pytest.mark.parametrize(
    ("kind", "mode"),
    [("PNG", "I;16"), ("TIFF", "I;16"), ("TIFF", "I;16B"), ("PPM", "I"), ("JPEG2000", "I;16")],
)
def test_16_bit_grey_is_what_dali_makes_of_it(kind: str, mode: str) -> None:
    data = deep_grey(kind, "I;16" if mode == "I" else mode)
    assert Image.open(io.BytesIO(data)).mode == mode
    theirs = decoded_by_dali(data).astype(int)
    ours = np.asarray(decode(data)).astype(int)
    assert ours.shape == (61, 83, 3)
    assert np.abs(ours - theirs).max() == 0


@pytest.mark.parametrize(("mode", "most"), [("I", 70_000), ("F", 1)])
def test_grey_whose_white_is_unknown_is_refused(mode: str, most: int) -> None:
    with pytest.raises(BadImageError, match="its pixels"):
        decode(deep_grey("TIFF", mode, most))


def test_grey_below_black_is_refused() -> None:
    stream = io.BytesIO()
    Image.new("I", (8, 8), -1).save(stream, format="TIFF")
    with pytest.raises(BadImageError, match=r"its pixels lie in \[-1, -1\]"):
        decode(stream.getvalue())
