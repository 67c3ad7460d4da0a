"""Comparison of decoded images with what PIL decodes of the same bytes, so that no decoder damages images unseen.

GPU decoders have returned black, foreign and overwritten images without an error (pytorch/vision#9606).
"""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from backbones.data import reference
from backbones.data.augment.view import View
from backbones.data.feed import Feed
from backbones.data.reading.reader import EncodedBatch
from backbones.dataset.encoded import decode
from backbones.dataset.place import BadImageError
from backbones.errors import UserError

BLOCK = 8
"""Side in pixels of the blocks whose means are compared."""

ROUNDING, CONTRAST_SHARE = 8.0, 0.5
"""Difference of two means that decoders may have: in levels of 255, and as a share of the contrast around the block.
Decoders differ in how they enlarge the colour planes, which counts at edges. libjpeg's fast modes, compared with its
exact ones, came to 0.38 of it on photographs and to 0.88 on drawings of pure colours."""

MAX_NAMES_SHOWN = 10
"""Images that the error names."""


class Chosen(NamedTuple):
    """An image to be compared, with its pixels on the way to the CPU.

    Shape: pixels (size, size, 3) uint8.
    """

    batch: EncodedBatch
    number: int
    """Place of the image in the batch."""
    pixels: torch.Tensor
    copied: torch.cuda.Event | None
    """Event after the copy from a GPU; None on a CPU."""


class DecodeCheck:
    """Check of one image in ``loading.decode_check``, from the first batch on.

    Images of a batch are compared when the next batch comes, so that a GPU's work in between hides the copy.
    """

    def __init__(self, feed: Feed) -> None:
        self.bad, self.view = feed.bad, without_operations(feed.view)
        self.interval = feed.loading.decode_check
        self.seen = 0
        self.random = np.random.default_rng(0)
        self.chosen: list[Chosen] = []

    def take(self, batch: EncodedBatch, pixels: torch.Tensor) -> None:
        """Compare the images chosen before, and choose among these.

        Args:
            batch: images as they were read.
            pixels: uint8 (N, size, size, 3), cropped or warped, before any other operation.

        Raises:
            UserError: an image is not what PIL decodes; all such images are named.
        """
        self.finish()
        numbers = self._choose(len(pixels))
        self.chosen = [_copy(batch, number, pixels[number]) for number in numbers]

    def finish(self) -> None:
        """Compare the images that were chosen last. Raises UserError as ``take`` does."""
        chosen, self.chosen = self.chosen, []
        damaged = [each for each in chosen if self._compare(each) > 1]
        if damaged:
            names = [self.bad.index.describe(int(each.batch.plan.rows[each.number])) for each in damaged]
            raise _error(names, total=len(chosen))

    def _choose(self, images: int) -> list[int]:
        """Return random places in a batch: one for each multiple of the interval that the count of images passes."""
        if not self.interval:
            return []
        before, self.seen = self.seen, self.seen + images
        passed = -(-self.seen // self.interval) - -(-before // self.interval)
        return self.random.choice(images, passed, replace=False).tolist()

    def _compare(self, chosen: Chosen) -> float:
        """Return the difference from what PIL decodes, in units of what is allowed; 0 for a file that PIL refuses."""
        if chosen.copied:
            chosen.copied.synchronize()
        batch, part = chosen.batch, slice(chosen.number, chosen.number + 1)
        try:
            image = decode(batch.data[chosen.number].tobytes())
        except BadImageError as error:
            self.bad.report(int(batch.plan.rows[chosen.number]), str(error))
            return 0.0
        plan = batch.plan._replace(rows=batch.plan.rows[part], draws=batch.plan.draws[part])
        alone = EncodedBatch(plan, plan, batch.data[part], batch.sizes[part])
        expected = reference.transform([image], alone, view=self.view)[0]
        return relative_difference(chosen.pixels, expected)


def without_operations(view: View) -> View:
    """Return the view without RandAugment or TrivialAugment, whose steep operations enlarge rounding."""
    if not view.is_auto:
        return view
    assert view.augment is not None
    plain = replace(view.augment.inception, auto="none")
    return replace(view, augment=replace(view.augment, inception=plain))


def relative_difference(pixels: torch.Tensor, expected: torch.Tensor) -> float:
    """Return the largest difference between means of blocks, in units of what rounding explains: above 1 is damage.

    Shape: uint8 (H, W, 3) twice.
    """
    ours, theirs = (image.permute(2, 0, 1).float() for image in (pixels, expected))
    mean = F.avg_pool2d(ours - theirs, BLOCK, ceil_mode=True)
    around = {"kernel_size": 3 * BLOCK, "stride": BLOCK, "padding": BLOCK, "ceil_mode": True}
    contrast = (F.max_pool2d(theirs, **around) + F.max_pool2d(-theirs, **around)).amax(0)  # of the strongest channel
    return float((mean.abs() / (ROUNDING + CONTRAST_SHARE * contrast)).max())


def _copy(batch: EncodedBatch, number: int, pixels: torch.Tensor) -> Chosen:
    """Copy an image to the CPU; from a GPU without waiting."""
    if pixels.device.type != "cuda":
        return Chosen(batch, number, pixels.clone(), None)
    copy = torch.empty(pixels.shape, dtype=pixels.dtype, pin_memory=True).copy_(pixels, non_blocking=True)
    copied = torch.cuda.Event()
    copied.record(torch.cuda.current_stream(pixels.device))
    return Chosen(batch, number, copy, copied)


def _error(names: list[str], *, total: int) -> UserError:
    shown = "".join(f"\n  {name}" for name in names[:MAX_NAMES_SHOWN])
    return UserError(
        f"{len(names)} of {total} images that were decoded again on the CPU differ by more than rounding:{shown}\n"
        "The decoder returned other pixels than PIL, so the images beside them may be damaged too.\n"
        "`python -m backbones doctor` compares a sample. If it finds the same images again, the decoders read these "
        "files in different ways: convert them. If not, suspect the driver, the memory or the device; "
        "--hw-decoder-load 0 avoids the GPU's hardware decoder, --decode-check 0 switches this check off."
    )
