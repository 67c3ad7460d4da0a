"""Tests of the view: crop or warp for each recipe."""

import numpy as np
import pytest

from backbones.data.augment.crop import training_crops, validation_crops
from backbones.data.augment.draws import DRAWS
from backbones.data.augment.view import View
from backbones.data.augment.warp import training_warps, validation_warps
from backbones.recipe import Augment, InceptionAugment, Preprocess

SIZES = np.array([[300, 400], [91, 77]])
DRAWN = np.random.default_rng(0).random((2, DRAWS))
TIMM, DARKNET = Preprocess("timm", 0.875), Preprocess(crop_pct=0.9)


@pytest.mark.parametrize("preprocess", [TIMM, DARKNET])
def test_training_is_cut_as_the_augmentation_says_whatever_the_protocol(preprocess: Preprocess) -> None:
    warped, cut = (View(64, preprocess, Augment(kind)) for kind in ("darknet", "inception"))
    assert (warped.is_warp, cut.is_warp) == (True, False)
    expected = training_warps(SIZES, DRAWN, size=64, augment=Augment())
    np.testing.assert_array_equal(warped.warps(SIZES, DRAWN).matrices, expected)
    ours, theirs = cut.crops(SIZES, DRAWN), training_crops(SIZES, DRAWN, size=64, augment=Augment("inception"))
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(one, other)


def test_evaluation_is_cut_as_the_protocol_says() -> None:
    timm, darknet, full = (View(64, preprocess) for preprocess in (TIMM, DARKNET, Preprocess("full")))
    assert [view.is_warp for view in (timm, darknet, full)] == [False, True, False]
    expected = validation_warps(SIZES, size=64, crop_pct=0.9)
    np.testing.assert_array_equal(darknet.warps(SIZES, DRAWN).matrices, expected)
    for view in (timm, full):
        theirs = validation_crops(SIZES, size=64, preprocess=view.preprocess)
        for one, other in zip(view.crops(SIZES, DRAWN), theirs, strict=True):
            np.testing.assert_array_equal(one, other)


def test_only_the_inception_augmentation_has_operations() -> None:
    auto = InceptionAugment(auto="randaugment")
    views = [None, Augment(), Augment("inception"), Augment("inception", inception=auto)]
    assert [View(64, TIMM, augment).is_auto for augment in views] == [False, False, False, True]
    assert View(64, TIMM, views[3]).operations(DRAWN).operation.shape == (2, 2)
