"""Tests of the warps against the reference, which samples and resizes by other formulas, and of their chances."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from backbones.data.augment.draws import ANGLE, ASPECT, ASPECT_COIN, DRAWS, FLIP, SCALE, SHIFT_X, SHIFT_Y
from backbones.data.augment.warp import (
    random_factors,
    relative_to,
    source_windows,
    training_warps,
    validation_warps,
    warp,
)
from backbones.recipe import Augment, DarknetAugment
from tests.data.augment import darknet_image

RECORDED = np.load(Path(__file__).parents[2] / "fixtures" / "darknet" / "image_ops.npz")
USED = (ASPECT, ASPECT_COIN, SCALE, ANGLE, FLIP, SHIFT_X, SHIFT_Y)
LAST = np.nextafter(1, 0)
SIDES = st.integers(1, 70)
NUMBERS = st.lists(st.floats(0, 1, exclude_max=True), min_size=DRAWS, max_size=DRAWS)
RANGES = DarknetAugment(min_crop=9, max_crop=41, angle=25, aspect=0.6)
SMALL = Augment(darknet=RANGES)


def random_image(height: int, width: int) -> torch.Tensor:
    return torch.rand(3, height, width, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def oracle(image: torch.Tensor, draws: list[float], size: int) -> torch.Tensor:
    """Follow the rules of random_augment_image one by one, for SMALL."""
    _, height, width = image.shape
    aspect = 0.6 + 0.4 * draws[ASPECT]
    aspect = 1 / aspect if draws[ASPECT_COIN] < 0.5 else aspect
    length = 9 + int(draws[SCALE] * 33)
    scale = length / max(1, int(min(height, width * aspect)))
    dx = max(0.0, (width * scale / aspect - size) / 2) * (2 * draws[SHIFT_X] - 1)
    dy = max(0.0, (height * scale - size) / 2) * (2 * draws[SHIFT_Y] - 1)
    radians = 25 * (2 * draws[ANGLE] - 1) * math.pi / 180
    view = darknet_image.rotate_crop(image, (size, size), radians=radians, scale=scale, shift=(dx, dy), aspect=aspect)
    return darknet_image.flip(view) if draws[FLIP] < 0.5 else view


@given(height=SIDES, width=SIDES, draws=NUMBERS, size=st.integers(1, 24))
@settings(max_examples=200, deadline=None)
def test_a_training_warp_equals_the_oracle(height: int, width: int, draws: list[float], size: int) -> None:
    image = random_image(height, width)
    (matrix,) = training_warps(np.array([[height, width]]), np.array([draws]), size=size, augment=SMALL)
    torch.testing.assert_close(warp(image, matrix, size), oracle(image, draws, size), rtol=0, atol=1e-9)


@given(height=SIDES, width=SIDES, size=st.integers(1, 24), crop_pct=st.floats(0.3, 1))
@example(height=5, width=7, size=1, crop_pct=1)
@settings(max_examples=200, deadline=None)
def test_a_validation_warp_equals_the_oracle(height: int, width: int, size: int, crop_pct: float) -> None:
    image = random_image(height, width)
    (matrix,) = validation_warps(np.array([[height, width]]), size=size, crop_pct=crop_pct)
    expected = darknet_image.centre_crop(image, size, crop_pct=crop_pct)
    torch.testing.assert_close(warp(image, matrix, size), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("size", [16, 24])
def test_a_validation_warp_equals_the_numbers_of_darknet(size: int) -> None:
    image = torch.from_numpy(RECORDED["image"])
    (matrix,) = validation_warps(np.array([image.shape[1:]]), size=size, crop_pct=1)
    expected = RECORDED[f"op/{RECORDED['ops'].tolist().index(f'valid {size}'):02d}"]
    np.testing.assert_allclose(warp(image, matrix, size), expected, rtol=0, atol=1e-5)


RECORDED_WARPS = [operation for operation in RECORDED["ops"].tolist() if operation.startswith("rotcrop")]


def test_darknet_recorded_four_warps() -> None:
    assert len(RECORDED_WARPS) == 4


@pytest.mark.parametrize("operation", RECORDED_WARPS)
def test_sampling_by_a_matrix_equals_the_numbers_of_darknet(operation: str) -> None:
    angle, scale, _, _, dx, dy, aspect = map(float, operation.split()[1:])
    rotation = np.array(
        [[math.cos(angle), -math.sin(angle), 29 / 2], [math.sin(angle), math.cos(angle), 21 / 2], [0, 0, 1]]
    )
    stretch = np.diag([aspect / scale, 1 / scale, 1])
    place = np.array([[1, 0, dx - 8], [0, 1, dy - 8], [0, 0, 1]])
    found = warp(torch.from_numpy(RECORDED["image"]), (rotation @ stretch @ place)[:2], 16)
    expected = RECORDED[f"op/{RECORDED['ops'].tolist().index(operation):02d}"]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


@given(height=SIDES, width=SIDES, draws=NUMBERS, size=st.integers(1, 24))
@settings(max_examples=200, deadline=None)
def test_sampling_a_window_equals_sampling_the_image(height: int, width: int, draws: list[float], size: int) -> None:
    sizes = np.array([[height, width]])
    matrices = training_warps(sizes, np.array([draws]), size=size, augment=SMALL)
    assert_same_through_windows(random_image(height, width), matrices, size)


@given(shift=st.tuples(st.floats(-90, 90), st.floats(-90, 90)), size=st.integers(1, 9), step=st.floats(-2, 2))
@settings(max_examples=200, deadline=None)
def test_a_window_may_show_little_or_nothing_of_the_image(shift: tuple[float, float], size: int, step: float) -> None:
    matrices = np.array([[[step, 0.3, shift[0]], [-0.2, step, shift[1]]]])
    assert_same_through_windows(random_image(30, 20), matrices, size)


def assert_same_through_windows(image: torch.Tensor, matrices: np.ndarray, size: int) -> None:
    windows = source_windows(matrices, np.array([image.shape[1:]]), size=size)
    ((top, left, height, width),) = windows.tolist()
    assert windows.dtype == np.int64
    assert 0 <= top < top + height <= image.shape[1]
    assert 0 <= left < left + width <= image.shape[2]
    part = image[:, top : top + height, left : left + width]
    found = warp(part, relative_to(matrices, windows)[0], size)
    torch.testing.assert_close(found, warp(image, matrices[0], size), rtol=0, atol=1e-9)


def test_a_window_is_the_touched_pixels_and_one_on_each_side() -> None:
    matrix = np.array([[2.0, 0, 10.5], [0, 3.0, 20.25]])
    touched = (20 - 1, 10 - 1, (20 + 3 * 7 + 2) - 20 + 2, (10 + 2 * 7 + 2) - 10 + 2)
    found = source_windows(matrix[None], np.array([[100, 100]]), size=8)
    assert tuple(found[0].tolist()) == touched


def test_a_rotated_window_holds_all_four_corners() -> None:
    cos, sin = math.cos(0.5), math.sin(0.5)
    matrix = np.array([[cos, -sin, 200], [sin, cos, 300]])
    found = source_windows(matrix[None], np.array([[600, 400]]), size=101)
    x, y = 200 - 100 * sin, 300 + 100 * (sin + cos)
    top, left, height, width = found[0].tolist()
    assert (top, left) == (299, math.floor(x) - 1)
    assert top + height == math.floor(y) + 3
    assert left + width == math.floor(200 + 100 * cos) + 3


def test_a_same_size_image_is_left_as_it_is() -> None:
    matrices = validation_warps(np.array([[24, 24], [24, 25]]), size=24, crop_pct=1)
    np.testing.assert_array_equal(matrices, np.broadcast_to(np.eye(3)[:2], (2, 2, 3)))


def test_a_batch_is_its_images() -> None:
    rng = np.random.default_rng(0)
    sizes, draws = rng.integers(1, 400, (6, 2)), rng.random((6, DRAWS))
    matrices = training_warps(sizes, draws, size=64, augment=Augment())
    centres = validation_warps(sizes, size=64, crop_pct=0.9)
    windows = source_windows(matrices, sizes, size=64)
    for i in range(6):
        one = slice(i, i + 1)
        alone = training_warps(sizes[one], draws[one], size=64, augment=Augment())
        np.testing.assert_allclose(matrices[one], alone, rtol=0, atol=1e-12)
        np.testing.assert_array_equal(centres[one], validation_warps(sizes[one], size=64, crop_pct=0.9))
        np.testing.assert_array_equal(windows[one], source_windows(alone, sizes[one], size=64))


@pytest.mark.parametrize("column", range(DRAWS))
def test_exactly_the_draws_of_the_warp_matter(column: int) -> None:
    draws = np.full((1, DRAWS), 0.3)
    changed = draws.copy()
    changed[0, column] = 0.8
    one, other = (
        training_warps(np.array([[500, 400]]), each, size=128, augment=Augment()) for each in (draws, changed)
    )
    assert np.array_equal(one, other) == (column not in USED)


def drawn(count: int, augment: Augment, height: int = 375, width: int = 500) -> dict[str, np.ndarray]:
    """Read length, aspect, angle and place back from ``count`` matrices without flips, for outputs of 256 pixels."""
    draws = np.random.default_rng(0).random((count, DRAWS))
    matrices = training_warps(np.tile([height, width], (count, 1)), draws, size=256, augment=augment)
    across, down = np.hypot(matrices[:, 0, :2], matrices[:, 1, :2]).T
    aspect = across / down
    length = np.floor(np.minimum(height, width * aspect) + 1e-9) / down
    return {
        "length": length,
        "aspect": aspect,
        "angle": np.degrees(np.arctan2(matrices[:, 1, 0], matrices[:, 0, 0])),
        "left": matrices[:, 0, 2],
        "room": width / across - 256,
        "across": across,
    }


UPRIGHT = Augment(hflip=0, darknet=DarknetAugment(angle=0))


def assert_uniform(values: np.ndarray, low: float, high: float) -> None:
    """Compare the shares of ten equal parts of [low, high] with a tenth, to five standard deviations."""
    shares = np.histogram(values, bins=10, range=(low, high))[0] / len(values)
    np.testing.assert_allclose(shares, 0.1, rtol=0, atol=5 * math.sqrt(0.09 / len(values)))


def test_the_length_is_an_integer_of_its_range_with_equal_chances() -> None:
    length = drawn(60_000, UPRIGHT)["length"]
    np.testing.assert_allclose(length, np.rint(length), rtol=0, atol=1e-6)
    counts = np.bincount(np.rint(length).astype(int), minlength=449)
    assert np.flatnonzero(counts)[[0, -1]].tolist() == [128, 448]
    expected = 60_000 / 321
    np.testing.assert_allclose(counts[128:], expected, rtol=0, atol=5.5 * math.sqrt(expected))


def test_both_ends_of_the_length_are_reached() -> None:
    draws = np.full((2, DRAWS), 0.5)
    draws[:, SCALE], draws[:, ASPECT] = (0, LAST), LAST
    matrices = training_warps(np.full((2, 2), 256), draws, size=256, augment=UPRIGHT)
    np.testing.assert_allclose(1 / matrices[:, 1, 1], [0.5, 448 / 256], rtol=1e-9)


def test_half_of_the_aspects_are_uniform_and_half_are_reciprocals() -> None:
    aspect = drawn(20_000, UPRIGHT)["aspect"]
    assert (aspect < 1).mean() == pytest.approx(0.5, abs=0.02)
    assert_uniform(aspect[aspect < 1], 0.75, 1)
    assert_uniform(1 / aspect[aspect > 1], 0.75, 1)


def test_angles_are_uniform_to_both_sides() -> None:
    angle = drawn(20_000, Augment(hflip=0))["angle"]
    assert np.abs(angle).max() < 7
    assert_uniform(angle, -7, 7)


def test_the_place_is_uniform_where_the_image_is_larger_than_the_output() -> None:
    found = drawn(20_000, UPRIGHT)
    some = found["room"] > 1
    assert some.sum() > 10_000
    assert_uniform((found["left"] / found["across"] / found["room"])[some], 0, 1)


def test_a_smaller_image_is_centred() -> None:
    found = drawn(5_000, UPRIGHT)
    small = found["room"] < 0
    assert small.sum() > 200
    np.testing.assert_allclose((found["left"] / found["across"])[small], found["room"][small] / 2, atol=1e-9)


def test_extreme_places_touch_the_edges_of_the_image() -> None:
    draws = np.full((2, DRAWS), LAST)
    draws[0, [SHIFT_X, SHIFT_Y]] = 0
    first, last = training_warps(np.full((2, 2), 300), draws, size=256, augment=UPRIGHT)
    np.testing.assert_allclose(first @ [0, 0, 1], [0, 0], atol=1e-9)
    np.testing.assert_allclose(last @ [256, 256, 1], [300, 300], atol=1e-9)


@pytest.mark.parametrize("chance", [0.0, 0.3, 1.0])
def test_flips_have_the_probability_of_the_recipe(chance: float) -> None:
    draws = np.random.default_rng(0).random((4000, DRAWS))
    matrices = training_warps(np.full((4000, 2), 300), draws, size=256, augment=Augment(hflip=chance))
    assert (matrices[:, 0, 0] < 0).mean() == pytest.approx(chance, abs=0.03)


def test_random_factors_rise_with_the_draw_and_turn_over_with_the_coin() -> None:
    draws = np.array([0, 0.5, LAST])
    low, high = (random_factors(draws, np.full(3, coin), 0.5) for coin in (0.5, np.nextafter(0.5, 0)))
    np.testing.assert_allclose(low, [0.5, 0.75, 1])
    np.testing.assert_allclose(high, [2, 4 / 3, 1])
