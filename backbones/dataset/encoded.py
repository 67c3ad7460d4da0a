"""What an encoded image says of itself before it is decoded: what it is, its size, whether its end is there."""

import io
import struct
from typing import NamedTuple

import numpy as np
from PIL import Image

from backbones.dataset.place import BadImageError

FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP", "PPM", "JPEG2000")
"""The formats that DALI decodes, too; anything else, such as GIF, is refused."""

MAX_PIXELS = 64_000_000
"""Larger images are refused undecoded: a small file can name a size that no memory holds."""

WHITE = 65_535
"""Of grey with 16 bits."""

JPEG, PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
ENDS = {"JPEG": b"\xff\xd9", "PNG": b"\xae\x42\x60\x82"}
"""Last bytes of a whole file: end of image, and the checksum of the end chunk."""

FRAME_HEADERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""JPEG markers whose segment holds the size of the image."""
WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD9)})
"""JPEG markers that stand alone."""
SCAN = 0xDA


class Header(NamedTuple):
    """What is known before decoding."""

    kind: str
    """Format, as PIL names it."""
    height: int
    width: int


def read_header(data: bytes) -> Header:
    """Return the format and size that an image claims; BadImageError where there are none, or too many pixels."""
    if not data:
        raise BadImageError("it is empty")
    if data.startswith(JPEG):
        header = Header("JPEG", *_jpeg_size(data))
    elif data.startswith(PNG) and len(data) >= 24:
        width, height = struct.unpack_from(">II", data, 16)
        header = Header("PNG", height, width)
    else:
        header = _other(data)
    if header.height * header.width > MAX_PIXELS:
        raise BadImageError(f"it has {header.width} x {header.height} pixels, more than {MAX_PIXELS / 1e6:.0f} million")
    if not header.height * header.width:
        raise BadImageError(f"its size is {header.width} x {header.height}")
    return header


def is_whole(data: bytes, kind: str) -> bool:
    """Return whether the last bytes are those of a complete file; for formats without an end mark, False."""
    return kind in ENDS and data.endswith(ENDS[kind])


def decode(data: bytes) -> Image.Image:
    """Return the whole image as RGB, or raise BadImageError.

    Strict: a truncated file is an error. EXIF orientation is ignored, as ImageFolder does.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            return to_rgb(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadImageError(_reason(error)) from error


def to_rgb(image: Image.Image) -> Image.Image:
    """Return the image with three channels of 8 bits; BadImageError where its numbers have no known white.

    16-bit grey is divided by 257 and rounded, as DALI does; PIL alone would make white of all that is above 255.
    """
    if image.mode == "F":
        raise BadImageError("its pixels are floating-point numbers")
    if not image.mode.startswith("I"):
        return image.convert("RGB")
    pixels = np.asarray(image).astype(np.int64)
    if pixels.min() < 0 or pixels.max() > WHITE:
        raise BadImageError(f"its pixels lie in [{pixels.min()}, {pixels.max()}], not in the [0, {WHITE}] of 16 bits")
    return Image.fromarray(((pixels + 128) // 257).astype(np.uint8)).convert("RGB")


def _jpeg_size(data: bytes) -> tuple[int, int]:
    """Return (height, width) from the frame header, which follows other segments."""
    at = 2
    while (at := data.find(b"\xff", at)) >= 0 and at + 9 <= len(data):
        marker = data[at + 1]
        if marker in FRAME_HEADERS:
            return struct.unpack_from(">HH", data, at + 5)
        if marker == SCAN:
            break
        if marker == 0xFF:
            at += 1
        elif marker in WITHOUT_LENGTH:
            at += 2
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    raise BadImageError("its JPEG header is incomplete")


def _other(data: bytes) -> Header:
    """Let PIL read the header of a rarer format."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            return Header(str(image.format), image.height, image.width)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadImageError(_reason(error)) from error


def _reason(error: Exception) -> str:
    text = str(error).partition("<_io.BytesIO")[0].strip()
    return "it is not an image of a known format" if text == "cannot identify image file" else text.splitlines()[0]
