"""Facts about an encoded image before it is decoded: its format, its size, and whether its end mark exists."""

import io
import struct
from typing import NamedTuple

import numpy as np
from PIL import Image

from backbones.dataset.dialects import has_unusual_colours, is_unusual
from backbones.dataset.jpeg import read_jpeg_header
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


class ImageHeader(NamedTuple):
    """Format and size that an image claims."""

    kind: str
    """Format, as PIL names it."""
    height: int
    width: int
    is_unusual: bool
    """Only PIL is to decode the image: DALI may read it otherwise (see dialects.py)."""


def read_header(data: bytes) -> ImageHeader:
    """Return the format and size that an image claims. Raises BadImageError for none, or for too many pixels."""
    if not data:
        raise BadImageError("it is empty")
    if data.startswith(JPEG):
        jpeg = read_jpeg_header(data)
        header = ImageHeader("JPEG", jpeg.height, jpeg.width, has_unusual_colours(jpeg))
    elif data.startswith(PNG) and len(data) >= 24:
        width, height = struct.unpack_from(">II", data, 16)
        header = ImageHeader("PNG", height, width, is_unusual("PNG", data))
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

    EXIF orientation is ignored, as ImageFolder does; the orientation of a TIFF is obeyed, as PIL does.
    """
    header = read_header(data)
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            rgb = to_rgb(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadImageError(_reason(error)) from error
    if rgb.size != (header.width, header.height):
        claimed, found = f"{header.width} x {header.height}", f"{rgb.width} x {rgb.height}"
        raise BadImageError(f"its header says {claimed}, but it has {found} pixels")
    return rgb


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


def _read_with_pil(data: bytes) -> ImageHeader:
    """Return what PIL reads in the header of another format."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            kind = str(image.format)
            return ImageHeader(kind, image.height, image.width, is_unusual(kind, data))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadImageError(_reason(error)) from error


def _reason(error: Exception) -> str:
    text = str(error).partition("<_io.BytesIO")[0].strip()
    return "it is not an image of a known format" if text == "cannot identify image file" else text.splitlines()[0]
