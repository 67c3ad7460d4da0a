"""Loader in PIL and torchvision, slow and plain: the reference for pipeline.py, and a loader without DALI."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any, cast

import torch
import torchvision.transforms.v2.functional as F
from PIL import Image

from backbones.data.augment.auto_augment import apply
from backbones.data.augment.view import View
from backbones.data.augment.warp import warp
from backbones.data.feed import Feed, OpenStage, Pixels
from backbones.data.order import Plan
from backbones.data.reading.reader import EncodedBatch, Reader, read_plans
from backbones.dataset.encoded import decode
from backbones.dataset.place import BadImageError


@contextmanager
def images(plans: Iterator[Plan], feed: Feed) -> Iterator[Pixels]:
    """Open an iterator of plans with their pixels. Raises UserError for a bad file that must stop the run.

    Shape: uint8 (N, size, size, 3).
    """
    with decode_plans(plans, feed) as batches:
        yield ((plan, transform(decoded, batch, view=feed.view)) for plan, (batch, decoded) in batches)


@contextmanager
def decode_plans(plans: Iterator[Plan], feed: Feed) -> Iterator[Iterator[tuple[Plan, Any]]]:
    """Open an iterator of what `decode_plan` returns for each plan."""
    with closing(Reader(feed.bad, threads=feed.loading.read_threads)) as reader:
        yield (decode_plan(plan, reader) for plan in plans)


STAGES: dict[str, OpenStage] = {"read": read_plans, "decode": decode_plans, "augment": images}
"""Stages of this loader, each with the work before it, for TrainLoader.stages."""


def decode_plan(plan: Plan, reader: Reader) -> tuple[Plan, tuple[EncodedBatch, list[Image.Image]]]:
    """Return the plan as it was read, with its encoded batch and its whole images.

    The plan is read again whenever an image turns out to be bad.
    """
    batch = reader.read(plan)
    decoded: list[Image.Image] = []
    for row, data in zip(batch.plan.rows.tolist(), batch.data, strict=True):
        try:
            decoded.append(decode(data.tobytes()))
        except BadImageError as error:
            reader.bad.report(row, str(error))
            return decode_plan(plan, reader)
    return batch.plan, (batch, decoded)


def transform(decoded: list[Image.Image], batch: EncodedBatch, *, view: View) -> torch.Tensor:
    """Cut, resize and mirror, or warp, the images of a batch.

    Shape: uint8 (N, size, size, 3).
    """
    geometry = view.warps if view.is_warp else view.crops
    places = zip(*geometry(batch.sizes, batch.plan.draws), strict=True)
    change = _warp if view.is_warp else _crop
    pixels = [change(image, *place, view=view) for image, place in zip(decoded, places, strict=True)]
    if view.is_auto:
        _operate(pixels, batch, view)
    return torch.stack(pixels)


def _crop(
    image: Image.Image, window: Any, box: Any, resized: Any, corner: Any, flip: Any, *, view: View
) -> torch.Tensor:
    part: Any = F.crop(cast("Any", image), *(int(value) for value in window))
    (box_top, box_left, box_height, box_width), (height, width) = box.tolist(), resized.tolist()
    top, left = corner.tolist()
    edges = (box_left, box_top, box_left + box_width, box_top + box_height)
    whole = part.resize((width, height), Image.Resampling[view.preprocess.interpolation.upper()], box=edges)
    pixels = F.pil_to_tensor(F.crop(whole, top, left, view.size, view.size)).permute(1, 2, 0)
    return pixels.flip(1) if flip else pixels.contiguous()


def _operate(pixels: list[torch.Tensor], batch: EncodedBatch, view: View) -> None:
    """Replace each (size, size, 3) image by what the operations of RandAugment or TrivialAugment make of it."""
    choice = view.operations(batch.plan.draws)
    for number, image in enumerate(pixels):
        channels_first = image.permute(2, 0, 1)
        for operation, amount in zip(choice.operation[number], choice.amount[number], strict=True):
            channels_first = apply(channels_first, int(operation), float(amount))
        pixels[number] = channels_first.permute(1, 2, 0)


def _warp(image: Image.Image, matrix: Any, _window: Any, *, view: View) -> torch.Tensor:
    pixels = F.pil_to_tensor(cast("Any", image)).double()
    return warp(pixels, matrix, view.size).round().to(torch.uint8).permute(1, 2, 0).contiguous()
