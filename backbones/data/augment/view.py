"""The rule by which images become (size, size) pixels: random for training, a protocol for evaluation."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from backbones.data.augment.auto_augment import Choice, choose
from backbones.data.augment.crop import Crops, training_crops, validation_crops
from backbones.data.augment.warp import source_windows, training_warps, validation_warps
from backbones.recipe import Augment, Preprocess


class Warps(NamedTuple):
    """Affine maps from an output pixel (x, y) to the source pixel (x, y), black outside of the image.

    Shape: matrices (N, 2, 3) float64; windows (N, 4) int64 top, left, height, width: the used part of the image.
    """

    matrices: np.ndarray
    windows: np.ndarray


@dataclass(frozen=True)
class View:
    """Size and geometry of the pixels that a loader makes of an image."""

    size: int
    """Height and width in pixels."""
    preprocess: Preprocess
    """The protocol of evaluation, and the interpolation."""
    augment: Augment | None = None
    """Ranges of the random augmentation; None: evaluation."""

    @property
    def is_warp(self) -> bool:
        """True when images are warped by one affine map without antialiasing, as in darknet; False: cropped."""
        if self.augment is None:
            return self.preprocess.protocol == "darknet"
        return self.augment.augmentation == "darknet"

    def warps(self, sizes: np.ndarray, draws: np.ndarray) -> Warps:
        """Return the affine maps of a batch of images of ``sizes`` (N, 2) height, width."""
        if self.augment is None:
            matrices = validation_warps(sizes, size=self.size, crop_pct=self.preprocess.crop_pct)
        else:
            matrices = training_warps(sizes, draws, size=self.size, augment=self.augment)
        return Warps(matrices, source_windows(matrices, sizes, size=self.size))

    def crops(self, sizes: np.ndarray, draws: np.ndarray) -> Crops:
        """Return the rectangles of a batch of images of ``sizes`` (N, 2) height, width."""
        if self.augment is None:
            return validation_crops(sizes, size=self.size, preprocess=self.preprocess)
        return training_crops(sizes, draws, size=self.size, augment=self.augment)

    @property
    def is_auto(self) -> bool:
        """True when RandAugment or TrivialAugment follows the crop."""
        if self.augment is None or self.augment.augmentation != "inception":
            return False
        return self.augment.inception.auto != "none"

    def operations(self, draws: np.ndarray) -> Choice:
        """Return the operations of a batch; only if ``is_auto``."""
        assert self.augment is not None
        return choose(draws, self.augment.inception, size=self.size)
