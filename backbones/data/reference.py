"""The preprocessing in PIL and torchvision, slow and plain: the oracle for pipeline.py, and a loader without DALI."""

from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import torch
import torchvision.transforms.v2.functional as F
from PIL import Image
from torchvision.transforms import InterpolationMode

from backbones.data.crop import View, crop_arguments, geometry
from backbones.data.feed import Feed, Pixels
from backbones.data.order import Plan
from backbones.errors import UserError

FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP", "PPM", "JPEG2000")
"""The formats that DALI decodes too; anything else, such as GIF, is refused."""


def images(plans: Iterator[Plan], feed: Feed) -> Pixels:
    """Yield each plan with its pixels.

    Shape: uint8 (N, size, size, 3).
    """
    for plan in plans:
        arguments = crop_arguments(plan.draws, feed.view.augment)
        rows = zip(plan.rows, arguments, strict=True)
        pixels = [transform(decode(feed.index.path(row)), each, view=feed.view) for row, each in rows]
        yield plan, torch.stack(pixels)


def decode(path: str) -> Image.Image:
    """Return the whole image as RGB, or raise UserError with its path.

    Strict: a truncated file is an error. EXIF orientation is ignored, as ImageFolder does.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            return image.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = str(error).replace(path, "it").splitlines()[0]
        raise UserError(
            f"{path} cannot be decoded: {reason}.\nReplace the file, or delete it and start again."
        ) from error


def transform(image: Image.Image, arguments: np.ndarray, *, view: View) -> torch.Tensor:
    """Cut, resize, cut and mirror one image by its geometry.

    Shape: uint8 (size, size, 3).
    """
    window, resized, (top, left), flip = geometry(image.height, image.width, arguments, view=view)
    mode = InterpolationMode(view.preprocess.interpolation)
    cut: Any = F.resized_crop(cast("Any", image), *window, size=list(resized), interpolation=mode, antialias=True)
    pixels = F.pil_to_tensor(F.crop(cut, top, left, view.size, view.size)).permute(1, 2, 0)
    return pixels.flip(1) if flip else pixels.contiguous()
