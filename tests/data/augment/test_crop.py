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
from backbones.recipe import Augment, InceptionAugment, Interpolation, Preprocess
from tests.dataset.make_pictures import picture

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


@pytest.mark.parametrize("size", [(900, 20), (20, 900), (3000, 7), (1, 5000), (1900, 230)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_a_thin_image_is_resized_only_where_the_crop_sees_it(
    size: tuple[int, int], interpolation: Interpolation
) -> None:
    """The pixels are those of torchvision, which resizes the whole image before it cuts."""
    image = Image.fromarray(picture(*size, seed=3))
    preprocess = Preprocess("timm", crop_pct=0.875, interpolation=interpolation)
    found = validation_crops(np.array([[image.height, image.width]]), size=64, preprocess=preprocess)
    (top, left, tall, wide), (box_top, box_left, box_tall, box_wide), resized = (part[0].tolist() for part in found[:3])
    assert resized == [64, 64]
    assert tall * wide < 8 * max(min(size), 64) ** 2
    part = image.crop((left, top, left + wide, top + tall))
    box = (box_left, box_top, box_left + box_wide, box_top + box_tall)
    ours = part.resize((64, 64), Image.Resampling[interpolation.upper()], box=box)
    whole = v2.functional.resize(image, [73], v2.InterpolationMode(interpolation))
    theirs = v2.functional.center_crop(whole, [64, 64])
    difference = np.abs(np.asarray(ours).astype(int) - np.asarray(theirs))
    assert difference.max() <= 1
    assert difference.mean() <= 0.05


def test_the_window_of_a_thin_image_does_not_grow_with_its_length() -> None:
    lengths = np.array([600, 60_000, 60_000_000])
    found = validation_crops(np.column_stack([np.ones(3, dtype=int), lengths]), size=224, preprocess=Preprocess("timm"))
    assert found.windows[:, 3].max() <= 8
    assert found.resized.tolist() == [[224, 224]] * 3


def test_images_of_usual_shapes_keep_their_whole_window() -> None:
    sizes = np.array([[100, 800], [800, 100], [375, 500], [1, 8]])
    found = validation_crops(sizes, size=64, preprocess=Preprocess("timm"))
    assert found.windows.tolist() == [[0, 0, *size] for size in sizes.tolist()]
    assert found.boxes.tolist() == found.windows.tolist()


def test_the_full_protocol_squashes_the_whole_image() -> None:
    found = validation_crops(np.array([[300, 40]]), size=64, preprocess=Preprocess("full"))
    assert [part[0].tolist() for part in found] == [[0, 0, 300, 40], [0, 0, 300, 40], [64, 64], [0, 0], 0]
