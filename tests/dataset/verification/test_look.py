"""Broken files made by hand are refused with their reason; unusual ones that are fine are only described."""

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from backbones.dataset.index import Place
from backbones.dataset.verification import look as module
from backbones.dataset.verification.look import Look, Remark, look_at

PIXELS = np.random.default_rng(5).integers(0, 256, (45, 60, 3), dtype=np.uint8)
SOUND = Image.fromarray(PIXELS)


def encoded(image: Image.Image = SOUND, kind: str = "JPEG", **options) -> bytes:
    data = io.BytesIO()
    image.save(data, format=kind, **options)
    return data.getvalue()


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, pixels: bytes = b"", *, depth: int = 8, first: bytes = b"") -> bytes:
    """A PNG with three channels, written chunk by chunk."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, 2, 0, 0, 0))
    body = png_chunk(b"IDAT", zlib.compress(pixels)) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + first + header + body


def png_lines(height: int, bytes_each: int) -> bytes:
    return b"".join(b"\0" + bytes(bytes_each) for _ in range(height))


def bmp_header(width: int, height: int) -> bytes:
    return b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)


def jpeg_of(width: int, height: int) -> bytes:
    """A JPEG whose frame header claims another size."""
    data = bytearray(encoded())
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def changed(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]


def look(folder: Path, data: bytes, name: str = "image.jpg") -> Look:
    (folder / name).write_bytes(data)
    return look_at(Place(str(folder / name), 0, len(data)), name)


PNG = encoded(kind="PNG")
PRIVATE = png_chunk(b"prVt", struct.pack(">II", 5, 5))
BAD = {
    "the first half": (encoded()[: len(encoded()) // 2], "truncated"),
    "all but the last two bytes": (encoded()[:-2], "truncated"),
    "the first half with an end mark": (encoded()[: len(encoded()) // 2] + b"\xff\xd9", "of its rows are lost"),
    "nothing": (b"", "it is empty"),
    "a web page": (b"<html><body>404 Not Found</body></html>", "not an image of a known format"),
    "a GIF": (encoded(kind="GIF"), "not an image of a known format"),
    "a PNG of 400 million pixels": (png(20000, 20000), "20000 x 20000 pixels, more than 64 million"),
    "a JPEG header of 4290 million pixels": (jpeg_of(65500, 65500), "65500 x 65500 pixels, more than 64 million"),
    "a BMP header of 100 million pixels": (bmp_header(10000, 10000), "10000 x 10000 pixels, more than 64 million"),
    "a PNG with a changed byte": (changed(PNG, len(PNG) // 2), "broken data stream"),
    "a PNG whose first chunk is no header": (
        png(60, 45, png_lines(45, 180), first=PRIVATE),
        "says 5 x 5, but it has 60 x 45",
    ),
}


@pytest.mark.parametrize(("data", "reason"), BAD.values(), ids=BAD.keys())
def test_a_bad_image_is_recognized_with_its_reason(tmp_path, data, reason):
    found = look(tmp_path, data)
    assert reason in found.reason
    assert found == Look(reason=found.reason)


def test_a_file_of_more_than_32_megabytes_is_refused_unread(tmp_path):
    file = tmp_path / "image.jpg"
    file.write_bytes(encoded())
    os.truncate(file, 32 * 2**20 + 1)
    assert "more than 32 MB" in look_at(Place(str(file), 0, 32 * 2**20 + 1), "image.jpg").reason


@pytest.mark.parametrize("change", [-1, 1])
def test_a_file_of_another_length_than_in_the_index_is_bad(tmp_path, change):
    file = tmp_path / "image.jpg"
    file.write_bytes(encoded())
    found = look_at(Place(str(file), 0, len(encoded()) + change), "image.jpg")
    assert "no longer has" in found.reason


def test_a_file_that_is_gone_is_bad(tmp_path):
    assert look_at(Place(str(tmp_path / "image.jpg"), 0, 100), "image.jpg").reason == "no such file or directory"


def test_an_error_that_no_decoder_should_raise_is_a_reason_too(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "decode", lambda data: data[len(data)])
    assert look(tmp_path, encoded()).reason == "IndexError: index out of range"


def test_running_out_of_memory_is_not_held_against_the_image(tmp_path, monkeypatch):
    def too_much(data):
        raise MemoryError

    monkeypatch.setattr(module, "decode", too_much)
    with pytest.raises(MemoryError):
        look(tmp_path, encoded())


def with_orientation(number: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = number
    return encoded(exif=exif)


GREY_16 = Image.fromarray(PIXELS[..., 0].astype(np.uint16) * 257)
NONE = Remark(0)
FINE = {
    "JPEG": (encoded(), "a.JPEG", "JPEG RGB", NONE),
    "grey JPEG": (encoded(SOUND.convert("L")), "a.jpg", "JPEG grey", NONE),
    "CMYK JPEG": (encoded(SOUND.convert("CMYK")), "a.jpg", "JPEG CMYK", Remark.UNUSUAL),
    "progressive JPEG": (encoded(progressive=True), "a.jpg", "JPEG RGB", Remark.PROGRESSIVE),
    "JPEG with trailing garbage": (encoded() + b"garbage", "a.jpg", "JPEG RGB", Remark.TRAILING),
    "turned JPEG": (with_orientation(6), "a.jpg", "JPEG RGB", Remark.TURNED),
    "mirrored JPEG": (with_orientation(2), "a.jpg", "JPEG RGB", Remark.TURNED),
    "upright JPEG": (with_orientation(1), "a.jpg", "JPEG RGB", NONE),
    "JPEG with damaged EXIF": (encoded(exif=b"Exif\0\0II*\0\xff\xff"), "a.jpg", "JPEG RGB", NONE),
    "PNG": (PNG, "a.png", "PNG RGB", NONE),
    "PNG named .JPEG": (PNG, "a.JPEG", "PNG RGB", Remark.MISNAMED),
    "PNG with alpha": (encoded(SOUND.convert("RGBA"), "PNG"), "a.png", "PNG RGB with alpha", NONE),
    "palette PNG": (encoded(SOUND.convert("P"), "PNG"), "a.png", "PNG palette", NONE),
    "16-bit grey PNG": (encoded(GREY_16, "PNG"), "a.png", "PNG grey 16-bit", NONE),
    "16-bit RGB PNG": (png(60, 45, png_lines(45, 360), depth=16), "a.png", "PNG RGB 16-bit", NONE),
    "PNG with trailing garbage": (PNG + b"garbage", "a.png", "PNG RGB", Remark.TRAILING),
    "PNG without its last chunk": (PNG[:-12], "a.png", "PNG RGB", Remark.ENDLESS),
    "BMP": (encoded(kind="BMP"), "a.bmp", "BMP RGB", NONE),
}


@pytest.mark.parametrize(("data", "name", "kind", "remarks"), FINE.values(), ids=FINE.keys())
def test_an_odd_image_that_decodes_is_only_described(tmp_path, data, name, kind, remarks):
    found = look(tmp_path, data, name)
    assert found[:4] == (kind, 45, 60, remarks)
    assert found.reason == ""


def test_a_changed_byte_with_which_the_image_decodes_is_not_found(tmp_path):
    """What the documentation says: only a list of checksums would tell."""
    data = encoded()
    sound, other = look(tmp_path, data), look(tmp_path, changed(data, len(data) * 3 // 4))
    assert other._replace(digest=sound.digest) == sound
    assert other.digest != sound.digest
