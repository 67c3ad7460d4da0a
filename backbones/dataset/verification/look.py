"""Check of one image: use, kind, size and unusual properties.

A changed byte with which the image still decodes in full is not found: nothing here knows the original pixels.
"""

import io
import warnings
from enum import IntFlag
from hashlib import blake2b
from typing import NamedTuple

from PIL import Image

from backbones.dataset.damage import find_damage
from backbones.dataset.encoded import ENDS, FORMATS, PNG, ImageHeader, decode, is_whole, read_header
from backbones.dataset.place import BadImageError, Place, read_bytes
from backbones.errors import UserError

MODES = {"L": "grey", "LA": "grey with alpha", "I;16": "grey", "I;16B": "grey", "I": "grey", "1": "black and white"}
MODES |= {"P": "palette", "PA": "palette with alpha", "RGBA": "RGB with alpha"}
"""PIL's mode -> words; other modes, such as CMYK, are words already."""

ENDINGS = {
    "jpg": "JPEG",
    "jpeg": "JPEG",
    "tif": "TIFF",
    "ppm": "PPM",
    "pgm": "PPM",
    "png": "PNG",
    "bmp": "BMP",
    "webp": "WEBP",
}
ENDINGS |= {"tiff": "TIFF"}
"""Ending of a file name -> format."""

ORIENTATION = 0x0112
"""EXIF tag; 1 is upright."""

PNG_DEPTH = 24
"""Position of the byte in a PNG file that tells the bits per channel."""


class Remark(IntFlag):
    """Unusual property of an image that can be used."""

    PROGRESSIVE = 1
    """Progressive JPEG, which is slower to decode and too much for some hardware decoders."""
    TURNED = 2
    """EXIF asks for a rotation or a reflection, which training and validation ignore."""
    MISNAMED = 4
    """Another format than the ending of the name; the content decides."""
    TRAILING = 8
    """Bytes after the end of the image."""
    ENDLESS = 16
    """No end mark, though no pixel is missing."""
    UNUSUAL = 32
    """Decoded by PIL in every loader, because DALI reads such files otherwise."""


class Look(NamedTuple):
    """Properties of one image, or the reason why it cannot be used."""

    kind: str = ""
    """Format and colours, as "JPEG CMYK"; empty for a bad image."""
    height: int = 0
    width: int = 0
    remarks: Remark = Remark(0)
    digest: int = 0
    """64 bits of blake2b of the bytes: two of a million different images have the same with a probability of 3e-8."""
    reason: str = ""
    """Reason why it is bad."""


def look_at(place: Place, name: str) -> Look:
    """Read, check and decode one image in full; the ending of ``name`` is compared with the format."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about damaged EXIF and the like, which changes no pixel
        try:
            return _describe(read_bytes(place), name)
        except BadImageError as error:
            return Look(reason=str(error))
        except (MemoryError, UserError):
            raise
        except Exception as error:  # noqa: BLE001  # decoders fail in many ways, always because of the file
            return Look(reason=f"{type(error).__name__}: {error}")


def _describe(data: bytes, name: str) -> Look:
    """Return the properties of a good image; BadImageError for any other."""
    header = read_header(data)
    decode(data)
    if damage := find_damage(data):
        raise BadImageError(damage)
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        kind = f"{header.kind} {MODES.get(image.mode, image.mode)}{_depth(data, image.mode)}"
        remarks = _remarks(data, header, name, image)
    digest = int.from_bytes(blake2b(data, digest_size=8).digest(), "little")
    return Look(kind, header.height, header.width, remarks, digest)


def _depth(data: bytes, mode: str) -> str:
    """Return " 16-bit" for an image with more than 8 bits; for a colour PNG only the header tells."""
    is_deep = mode.startswith("I") or (data.startswith(PNG) and data[PNG_DEPTH] == 16)
    return " 16-bit" if is_deep else ""


def _remarks(data: bytes, header: ImageHeader, name: str, image: Image.Image) -> Remark:
    remarks = Remark(0)
    if image.info.get("progressive"):
        remarks |= Remark.PROGRESSIVE
    if _is_turned(image):
        remarks |= Remark.TURNED
    if ENDINGS.get(name.rpartition(".")[2].lower(), header.kind) != header.kind:
        remarks |= Remark.MISNAMED
    if header.is_unusual:
        remarks |= Remark.UNUSUAL
    if header.kind in ENDS and not is_whole(data, header.kind):
        remarks |= Remark.TRAILING if ENDS[header.kind] in data else Remark.ENDLESS
    return remarks


def _is_turned(image: Image.Image) -> bool:
    try:
        return image.getexif().get(ORIENTATION, 1) in range(2, 9)
    except Exception:  # noqa: BLE001  # damaged EXIF fails in many ways and changes no pixel
        return False
