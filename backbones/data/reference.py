"""The preprocessing in PIL and torchvision, slow and plain: the oracle for pipeline.py, and a loader without DALI."""

from collections.abc import Iterator
from contextlib import closing
from typing import Any, cast

import torch
import torchvision.transforms.v2.functional as F
from PIL import Image
from torchvision.transforms import InterpolationMode

from backbones.data.augment.auto_augment import apply
from backbones.data.augment.view import View
from backbones.data.augment.warp import warp
from backbones.data.feed import Feed, Pixels
from backbones.data.order import Plan
from backbones.data.reading.reader import EncodedBatch, Reader
from backbones.dataset.encoded import decode
from backbones.dataset.place import BadImageError


def images(plans: Iterator[Plan], feed: Feed) -> Pixels:
    """Yield each plan with its pixels. Raises UserError for a bad file where it must stop the run.

    Shape: uint8 (N, size, size, 3).
    """
    with closing(Reader(feed.bad, threads=feed.loading.read_threads)) as reader:
        for plan in plans:
            batch = reader.read(plan)
            while (decoded := _decoded(batch, reader)) is None:
                batch = reader.read(plan)
            yield batch.plan, transform(decoded, batch, view=feed.view)


def transform(decoded: list[Image.Image], batch: EncodedBatch, *, view: View) -> torch.Tensor:
    """Cut, resize and mirror, or warp, the images of a batch.

    Shape: uint8 (N, size, size, 3).
    """
    geometry = view.warps if view.is_warp else view.crops
    rows = zip(*geometry(batch.sizes, batch.plan.draws), strict=True)
    change = _warped if view.is_warp else _cropped
    pixels = [change(image, *row, view=view) for image, row in zip(decoded, rows, strict=True)]
    return torch.stack(_operated(pixels, batch, view) if view.is_auto else pixels)


def _decoded(batch: EncodedBatch, reader: Reader) -> list[Image.Image] | None:
    """Return the whole images; None where one of them is bad, and is now known to be."""
    images: list[Image.Image] = []
    for row, data in zip(batch.plan.rows.tolist(), batch.data, strict=True):
        try:
            images.append(decode(data.tobytes()))
        except BadImageError as error:
            reader.bad.report(row, str(error))
            return None
    return images


def _cropped(image: Image.Image, window: Any, resized: Any, corner: Any, flip: Any, *, view: View) -> torch.Tensor:
    mode = InterpolationMode(view.preprocess.interpolation)
    where = [int(value) for value in window]
    size = [int(value) for value in resized]
    cut: Any = F.resized_crop(cast("Any", image), *where, size=size, interpolation=mode, antialias=True)
    pixels = F.pil_to_tensor(F.crop(cut, int(corner[0]), int(corner[1]), view.size, view.size)).permute(1, 2, 0)
    return pixels.flip(1) if flip else pixels.contiguous()


def _operated(pixels: list[torch.Tensor], batch: EncodedBatch, view: View) -> list[torch.Tensor]:
    """Apply the operations of RandAugment or TrivialAugment to each (size, size, 3) image."""
    for number, image in enumerate(pixels):
        for operation, amount in zip(*(part[number] for part in view.operations(batch.plan.draws)), strict=True):
            image = apply(image.permute(2, 0, 1), int(operation), float(amount)).permute(1, 2, 0)  # noqa: PLW2901
        pixels[number] = image
    return pixels


def _warped(image: Image.Image, matrix: Any, _window: Any, *, view: View) -> torch.Tensor:
    pixels = F.pil_to_tensor(cast("Any", image)).double()
    return warp(pixels, matrix, view.size).round().to(torch.uint8).permute(1, 2, 0).contiguous()
