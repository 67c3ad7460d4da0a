"""Tests of the rectangles: windows have the drawn area, ratio and place, and evaluation cuts as torchvision does."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import v2

from backbones.data.augment.crop import Crops, training_crops, validation_crops
from backbones.data.augment.draws import AREA, DRAWS, FLIP, LEFT, RATIO, TOP
from backbones.recipe import Augment, InceptionAugment, Preprocess

AUGMENT = Augment("inception", inception=InceptionAugment(scale=(0.25, 0.6), ratio=(0.8, 1.25)))
SIDES = st.integers(1, 700)
UNIFORM = st.lists(st.floats(0, 1, exclude_max=True), min_size=DRAWS, max_size=DRAWS)


def crops(height: int, width: int, draws: np.ndarray, augment: Augment = AUGMENT) -> Crops:
    return training_crops(np.tile([height, width], (len(draws), 1)), draws, size=32, augment=augment)


@given(height=SIDES, width=SIDES, draws=UNIFORM)
def test_a_window_lies_inside_the_image(height: int, width: int, draws: list[float]) -> None:
    top, left, tall, wide = crops(height, width, np.array([draws])).windows[0]
    assert 0 <= top < top + tall <= height
    assert 0 <= left < left + wide <= width


def test_area_and_ratio_follow_the_recipe() -> None:
    draws = np.random.default_rng(0).random((4000, DRAWS))
    _, _, tall, wide = crops(900, 1000, draws).windows.T
    np.testing.assert_allclose(tall * wide / 9e5, 0.25 + 0.35 * draws[:, AREA], atol=4e-3)
    np.testing.assert_allclose(np.log(wide / tall), math.log(0.8) + math.log(1.25 / 0.8) * draws[:, RATIO], atol=4e-3)
    assert (draws[:, RATIO] < 0.5).mean() == pytest.approx((wide < tall).mean(), abs=0.02)


def test_places_reach_both_edges() -> None:
    draws = np.full((2, DRAWS), 0.5)
    draws[0, [TOP, LEFT]], draws[1, [TOP, LEFT]] = 0.0, np.nextafter(1, 0)
    first, last = crops(100, 200, draws).windows
    assert first[:2].tolist() == [0, 0]
    assert [last[0] + last[2], last[1] + last[3]] == [100, 200]


def test_a_window_that_does_not_fit_is_cut_to_the_image() -> None:
    draws = np.zeros((1, DRAWS))
    draws[:, [AREA, TOP, LEFT]] = 1 - 1e-9, 0.3, 0.3
    whole = Augment("inception", inception=InceptionAugment(scale=(1, 1)))
    assert crops(100, 300, draws, whole).windows[0].tolist() == [0, 45, 100, 150]


def test_flips_have_the_probability_of_the_recipe() -> None:
    draws = np.random.default_rng(0).random((4000, DRAWS))
    for chance in (0.0, 0.3, 1.0):
        flips = crops(50, 50, draws, Augment("inception", hflip=chance)).flips
        np.testing.assert_array_equal(flips, draws[:, FLIP] < chance)
        assert flips.mean() == pytest.approx(chance, abs=0.03)


@pytest.mark.parametrize("size", [(341, 257), (257, 341), (500, 375), (375, 500), (64, 64), (91, 40), (40, 93)])
@pytest.mark.parametrize("crop_pct", [1.0, 0.95, 0.887])
def test_timm_s_protocol_resizes_and_centres_as_torchvision(size: tuple[int, int], crop_pct: float) -> None:
    width, height = size
    preprocess = Preprocess("timm", crop_pct=crop_pct)
    found = validation_crops(np.array([[height, width]]), size=64, preprocess=preprocess)
    resized = v2.functional.resize(Image.new("RGB", size), [math.floor(64 / crop_pct)])
    ramp = np.arange(resized.width)[None].repeat(resized.height, axis=0) + 1000 * np.arange(resized.height)[:, None]
    cut = v2.functional.center_crop(Image.fromarray(ramp.astype(np.int32)), [64, 64])
    assert found.resized[0].tolist() == [resized.height, resized.width]
    assert found.corners[0].tolist() == list(divmod(np.asarray(cut)[0, 0].item(), 1000))
    assert found.windows[0].tolist() == [0, 0, height, width]
    assert not found.flips.any()


def test_the_full_protocol_squashes_the_whole_image() -> None:
    found = validation_crops(np.array([[300, 40]]), size=64, preprocess=Preprocess("full"))
    assert [part[0].tolist() for part in found] == [[0, 0, 300, 40], [0, 0, 300, 40], [64, 64], [0, 0], 0]
