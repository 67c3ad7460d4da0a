"""One image made smaller: an RGB JPEG with a limited short side, from an image file of any format."""

import io
import warnings

from PIL import Image, features
from PIL import __version__ as pillow

from backbones.dataset.encoded import to_rgb
from backbones.dataset.place import BadImageError
from backbones.errors import UserError

FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP", "PPM")
"""Formats that are decoded; the content decides, not the name."""

KEPT_MODES = ("RGB", "L")
"""Colour modes of a plain JPEG."""


def shrink(content: bytes, short_side: int, quality: int) -> bytes:
    """Return the image as a JPEG whose short side is at most ``short_side`` pixels, never enlarged.

    The filter is bicubic with antialiasing, and the long side is truncated to whole pixels, as in torchvision's Resize.
    A JPEG in RGB or grey that is small enough keeps its bytes. EXIF orientation is ignored, as in ImageFolder. Raises
    UserError with the reason where the image cannot be decoded in full.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content), formats=FORMATS) as image:
                image.load()
                size = shrunk(image.width, image.height, short_side)
                if image.format == "JPEG" and image.mode in KEPT_MODES and size == image.size:
                    return content
                return _jpeg(to_rgb(image), size, quality)
    except BadImageError as error:
        raise UserError(str(error)) from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UserError(_reason(error)) from error


def shrunk(width: int, height: int, short_side: int) -> tuple[int, int]:
    """Return width and height of the smaller image, in pixels."""
    short = min(width, height)
    if short <= short_side:
        return width, height
    return short_side * width // short, short_side * height // short


def encoder() -> str:
    """Name the libraries that the bytes of a JPEG depend on."""
    return f"Pillow {pillow}, libjpeg-turbo {features.version('libjpeg_turbo')}"


def _jpeg(image: Image.Image, size: tuple[int, int], quality: int) -> bytes:
    if size != image.size:
        image = image.resize(size, Image.Resampling.BICUBIC)
    written = io.BytesIO()
    image.save(written, format="JPEG", quality=quality)
    return written.getvalue()


def _reason(error: Exception) -> str:
    if isinstance(error, Image.UnidentifiedImageError):
        return "not an image in a known format"
    return " ".join(str(error).split()) or type(error).__name__
