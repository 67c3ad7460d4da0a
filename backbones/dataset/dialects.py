"""Images that decoders read differently: which ones only PIL decodes, so that every loader sees the same picture.

DALI and PIL were compared on a catalogue of 150 files. They agree to one level of 255 on the usual kinds: JPEG in grey
or YCbCr, PNG, BMP of 24 bits and WebP. On others DALI returns another picture without a word, or ends its pipeline: a
TIFF with an orientation, a CMYK JPEG without Adobe's marker, a PPM whose white is not 255. There PIL decides.
"""

import struct

from backbones.dataset.jpeg import JpegHeader

YCBCR = 1
"""Adobe's number of the usual colours."""

BITMAP_HEADER_BYTES, BITS, NO_COMPRESSION = 40, 24, 0
"""BMP: size of its second header, bits per pixel, kind of compression."""

ANIMATION = 0x02
"""Flag of an extended WebP."""


def has_unusual_colours(header: JpegHeader) -> bool:
    """Return whether a JPEG is neither grey nor YCbCr."""
    if len(header.components) == 1:
        return False
    return len(header.components) != 3 or header.components == b"RGB" or header.adobe_transform not in (None, YCBCR)


def is_unusual(kind: str, data: bytes) -> bool:
    """Return whether an image of another format than JPEG, as PIL names it, is left to PIL."""
    if kind == "PNG":
        return data.find(b"acTL", 0, data.find(b"IDAT")) >= 0
    if kind == "BMP":
        return not _is_plain_bitmap(data)
    if kind == "WEBP":
        return data[12:16] == b"VP8X" and bool(data[20] & ANIMATION)
    return True


def _is_plain_bitmap(data: bytes) -> bool:
    if len(data) < 34:
        return False
    header_bytes, bits, compression = struct.unpack_from("<I10xHI", data, 14)
    return (header_bytes, bits, compression) == (BITMAP_HEADER_BYTES, BITS, NO_COMPRESSION)
