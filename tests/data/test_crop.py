"""Tests of the geometry: windows have the drawn area, ratio and place, inside the image."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import v2

from backbones.data.crop import View, crop_arguments, geometry
from backbones.recipe import Augment, Preprocess

AUGMENT = Augment(scale=(0.25, 0.6), ratio=(0.8, 1.25))
VIEW = View(32, Preprocess(), AUGMENT)
SIDES = st.integers(1, 700)
DRAWS = st.lists(st.floats(0, 1, exclude_max=True), min_size=5, max_size=5)


@given(height=SIDES, width=SIDES, draws=DRAWS)
def test_a_window_lies_inside_the_image(height: int, width: int, draws: list[float]) -> None:
    arguments = crop_arguments(np.array([draws]), AUGMENT)[0]
    top, left, tall, wide = geometry(height, width, arguments, view=VIEW).window
    assert 0 <= top < top + tall <= height
    assert 0 <= left < left + wide <= width


def test_area_and_ratio_follow_the_recipe() -> None:
    draws = np.random.default_rng(0).random((4000, 5))
    windows = [geometry(900, 1000, row, view=VIEW).window for row in crop_arguments(draws, AUGMENT)]
    _, _, tall, wide = np.array(windows).T
    np.testing.assert_allclose(tall * wide / 9e5, 0.25 + 0.35 * draws[:, 0], atol=4e-3)
    np.testing.assert_allclose(np.log(wide / tall), math.log(0.8) + math.log(1.25 / 0.8) * draws[:, 1], atol=4e-3)
    assert (draws[:, 1] < 0.5).mean() == pytest.approx((wide < tall).mean(), abs=0.02)


def test_places_reach_both_edges() -> None:
    draws = np.full((2, 5), 0.5)
    draws[0, 2:4], draws[1, 2:4] = 0.0, np.nextafter(1, 0)
    first, last = (geometry(100, 200, row, view=VIEW).window for row in crop_arguments(draws, AUGMENT))
    assert first[:2] == (0, 0)
    assert (last[0] + last[2], last[1] + last[3]) == (100, 200)


def test_a_window_that_does_not_fit_is_cut_to_the_image() -> None:
    arguments = crop_arguments(np.array([[1 - 1e-9, 0.0, 0.3, 0.3, 0.0]]), Augment(scale=(1, 1)))[0]
    assert geometry(100, 300, arguments, view=VIEW).window == (0, 45, 100, 150)


def test_flips_have_the_probability_of_the_recipe() -> None:
    draws = np.random.default_rng(0).random((4000, 5))
    for chance in (0.0, 0.3, 1.0):
        flips = crop_arguments(draws, Augment(hflip=chance))[:, 4]
        assert flips.mean() == pytest.approx(chance, abs=0.03)
    assert not crop_arguments(draws, None).any()


@pytest.mark.parametrize("size", [(341, 257), (257, 341), (500, 375), (375, 500), (64, 64), (91, 40), (40, 93)])
@pytest.mark.parametrize("crop_pct", [1.0, 0.95, 0.887])
def test_validation_resizes_as_torchvision_and_centres_with_truncation(size: tuple[int, int], crop_pct: float) -> None:
    view = View(64, Preprocess(crop_pct=crop_pct))
    found = geometry(size[1], size[0], np.zeros(5), view=view)
    width, height = v2.functional.resize(Image.new("RGB", size), [int(64 / crop_pct)]).size
    assert found == ((0, 0, size[1], size[0]), (height, width), ((height - 64) // 2, (width - 64) // 2), 0)
