"""One image made smaller: an RGB JPEG with a limited short side, from an image file of any format."""

import io
import warnings

from PIL import Image, features
from PIL import __version__ as pillow

from backbones.dataset.damage import find_damage
from backbones.dataset.encoded import decode, read_header
from backbones.dataset.place import BadImageError
from backbones.errors import UserError


def shrink(content: bytes, short_side: int, quality: int) -> bytes:
    """Return the image as a JPEG whose short side is at most ``short_side`` pixels, never enlarged.

    The filter is bicubic with antialiasing, and the long side is truncated to whole pixels, as in torchvision's Resize.
    A JPEG in RGB or grey that is small enough keeps its bytes. EXIF orientation is ignored, as in ImageFolder. Raises
    UserError with the reason where the image cannot be decoded in full.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = decode(content)
            if damage := find_damage(content):
                raise BadImageError(damage)
            size = shrunk(image.width, image.height, short_side)
            return content if size == image.size and _is_plain_jpeg(content) else _jpeg(image, size, quality)
    except BadImageError as error:
        raise UserError(str(error)) from error


def shrunk(width: int, height: int, short_side: int) -> tuple[int, int]:
    """Return width and height of the smaller image, in pixels."""
    short = min(width, height)
    if short <= short_side:
        return width, height
    return short_side * width // short, short_side * height // short


def encoder() -> str:
    """Name the libraries that the bytes of a JPEG depend on."""
    return f"Pillow {pillow}, libjpeg-turbo {features.version('libjpeg_turbo')}"


def _is_plain_jpeg(content: bytes) -> bool:
    """Return whether an image is a JPEG that every decoder reads alike."""
    header = read_header(content)
    return header.kind == "JPEG" and not header.is_unusual


def _jpeg(image: Image.Image, size: tuple[int, int], quality: int) -> bytes:
    if size != image.size:
        image = image.resize(size, Image.Resampling.BICUBIC)
    written = io.BytesIO()
    image.save(written, format="JPEG", quality=quality)
    return written.getvalue()
