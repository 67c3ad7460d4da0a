"""Facts about an encoded image before it is decoded: its format, its size, and whether its end mark exists."""

import io
import struct
from typing import NamedTuple

import numpy as np
from PIL import Image

from backbones.dataset.place import BadImageError

FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP", "PPM", "JPEG2000")
"""Accepted formats: those that DALI decodes, too. Others, such as GIF, are refused."""

MAX_PIXELS = 64_000_000
"""Larger images are refused before they are decoded: a small file can claim a size that fits into no memory."""

WHITE_16 = 65_535
"""White in an image with 16 bits per pixel."""

JPEG, PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
ENDS = {"JPEG": b"\xff\xd9", "PNG": b"\xae\x42\x60\x82"}
"""Last bytes of a complete file: the end-of-image marker, and the checksum of the end chunk."""

FRAME_HEADERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""JPEG markers whose segment holds the size of the image."""
MARKERS_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD9)})
"""JPEG markers that no segment follows."""
START_OF_SCAN = 0xDA


class ImageHeader(NamedTuple):
    """Format and size that an image claims."""

    kind: str
    """Format, as PIL names it."""
    height: int
    width: int


def read_header(data: bytes) -> ImageHeader:
    """Return the format and size that an image claims. Raises BadImageError for none, or for too many pixels."""
    if not data:
        raise BadImageError("it is empty")
    if data.startswith(JPEG):
        header = ImageHeader("JPEG", *_jpeg_size(data))
    elif data.startswith(PNG) and len(data) >= 24:
        width, height = struct.unpack_from(">II", data, 16)
        header = ImageHeader("PNG", height, width)
    else:
        header = _read_with_pil(data)
    if header.height * header.width > MAX_PIXELS:
        raise BadImageError(f"it has {header.width} x {header.height} pixels, more than {MAX_PIXELS / 1e6:.0f} million")
    if not header.height * header.width:
        raise BadImageError(f"its size is {header.width} x {header.height}")
    return header


def is_whole(data: bytes, kind: str) -> bool:
    """Return whether the last bytes are an end mark; always False for formats without one."""
    return kind in ENDS and data.endswith(ENDS[kind])


def decode(data: bytes) -> Image.Image:
    """Return the whole image as RGB. Raises BadImageError for a file that is damaged or truncated.

    EXIF orientation is ignored, as ImageFolder does.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            return to_rgb(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadImageError(_reason(error)) from error


def to_rgb(image: Image.Image) -> Image.Image:
    """Return the image with three channels of 8 bits. Raises BadImageError where the value of white is unknown.

    16-bit grey is divided by 257 and rounded, as DALI does. PIL alone would turn all values above 255 into white.
    """
    if image.mode == "F":
        raise BadImageError("its pixels are floating-point numbers")
    if not image.mode.startswith("I"):
        return image.convert("RGB")
    pixels = np.asarray(image).astype(np.int64)
    low, high = pixels.min(), pixels.max()
    if low < 0 or high > WHITE_16:
        raise BadImageError(f"its pixels lie in [{low}, {high}], not in the [0, {WHITE_16}] of 16 bits")
    return Image.fromarray(((pixels + 128) // 257).astype(np.uint8)).convert("RGB")


def _jpeg_size(data: bytes) -> tuple[int, int]:
    """Return (height, width) from the frame header, after the segments before it."""
    at = 2
    while (at := data.find(b"\xff", at)) >= 0 and at + 9 <= len(data):
        marker = data[at + 1]
        if marker in FRAME_HEADERS:
            return struct.unpack_from(">HH", data, at + 5)
        if marker == START_OF_SCAN:
            break
        if marker == 0xFF:
            at += 1
        elif marker in MARKERS_WITHOUT_LENGTH:
            at += 2
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    raise BadImageError("its JPEG header is incomplete")


def _read_with_pil(data: bytes) -> ImageHeader:
    """Return what PIL reads in the header of another format."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            return ImageHeader(str(image.format), image.height, image.width)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadImageError(_reason(error)) from error


def _reason(error: Exception) -> str:
    text = str(error).partition("<_io.BytesIO")[0].strip()
    return "it is not an image of a known format" if text == "cannot identify image file" else text.splitlines()[0]
