"""Tests of the colour matrices: against the exact HSV shift, torchvision, and sums written out by hand."""

import math

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional

from backbones.data.augment.colour import (
    darknet_matrices,
    darknet_shifts,
    jitter_matrices,
    recolour,
    shift_matrices,
)
from backbones.data.augment.draws import (
    BRIGHTNESS,
    CONTRAST,
    DRAWS,
    EXPOSE,
    EXPOSE_COIN,
    HUE,
    SATURATE,
    SATURATE_COIN,
    SATURATION,
)
from backbones.data.augment.hsv import distort
from backbones.recipe import Augment, DarknetAugment, InceptionAugment

LAST = np.nextafter(1, 0)
DARKNET = (HUE, SATURATE, SATURATE_COIN, EXPOSE, EXPOSE_COIN)
JITTER = (BRIGHTNESS, CONTRAST, SATURATION)
INCEPTION = Augment(augmentation="inception", inception=InceptionAugment(color_jitter=0.4))


def random_pixels(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def random_draws(count: int) -> np.ndarray:
    return np.random.default_rng(0).random((count, DRAWS))


def natural_images(count: int, side: int = 64) -> np.ndarray:
    """Return 1/f noise with the contrast and the channel correlation of photographs.

    Shape: (count, side, side, 3) float32 in [0, 1].
    """
    rng = np.random.default_rng(0)
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side))
    frequency[0, 0] = np.inf
    noise = np.fft.irfft2(np.fft.rfft2(rng.normal(size=(count, 4, side, side))) / frequency, s=(side, side))
    noise /= noise.std(axis=(2, 3), keepdims=True)
    colour = math.sqrt(0.9) * noise[:, 3:] + math.sqrt(0.1) * noise[:, :3]
    level = rng.uniform(0.3, 0.6, (count, 1, 1, 1)) + rng.normal(0, 0.05, (count, 3, 1, 1))
    return (level + 0.22 * colour).clip(0, 1).transpose(0, 2, 3, 1).astype(np.float32)


def apply(matrices: np.ndarray, pixels: torch.Tensor) -> torch.Tensor:
    return recolour(pixels, torch.from_numpy(matrices))


def shifts_of(shifts: list[tuple[float, float, float]], pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the pixels shifted by matrices, and shifted exactly."""
    exact = distort(pixels, *torch.tensor(shifts, dtype=torch.float32).T, dim=-1)
    return apply(shift_matrices(np.array(shifts)), pixels), exact


def test_no_shift_is_the_identity() -> None:
    matrix = shift_matrices(np.array([[0.0, 1.0, 1.0]]))
    np.testing.assert_allclose(matrix[0], np.eye(3, 4), rtol=0, atol=1e-15)
    pixels = random_pixels(1, 6, 6, 3)
    torch.testing.assert_close(apply(matrix, pixels), pixels, rtol=0, atol=0)


def test_a_change_of_value_is_exact() -> None:
    found, exact = shifts_of([(0, 1, 0.75), (0, 1, 1 / 0.75)], random_pixels(2, 9, 8, 3))
    torch.testing.assert_close(found, exact, rtol=0, atol=1e-6)


def test_a_hue_shift_by_a_third_of_the_circle_is_exact() -> None:
    found, exact = shifts_of([(1 / 3, 1, 0.9), (-1 / 3, 1, 1.1)], random_pixels(2, 9, 8, 3))
    torch.testing.assert_close(found, exact, rtol=0, atol=1e-5)


def test_a_small_hue_shift_moves_red_towards_yellow_and_back() -> None:
    red = torch.tensor([0.7, 0.3, 0.3]).expand(2, 1, 1, 3)
    found, exact = shifts_of([(0.03, 1, 1), (-0.03, 1, 1)], red)
    assert (found[0, 0, 0].argmin(), found[1, 0, 0].argmin()) == (exact[0, 0, 0].argmin(), exact[1, 0, 0].argmin())
    assert found[0, 0, 0, 2] < found[0, 0, 0, 1]


def test_saturation_multiplies_the_difference_from_the_luma() -> None:
    pixels = 0.3 + 0.4 * random_pixels(1, 5, 5, 3)
    luma = pixels @ torch.tensor([0.299, 0.587, 0.114])
    expected = luma[..., None] + 1.25 * (pixels - luma[..., None])
    found = apply(shift_matrices(np.array([[0.0, 1.25, 1.0]])), pixels)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_greys_stay_grey_as_in_hsv() -> None:
    shifts = [(0.1, 1.3, 0.8), (-0.1, 0.75, 1.2), (0.5, 1, 1)]
    greys = torch.linspace(0, 1, 9)[None, None, :, None].expand(3, 1, 9, 3).contiguous()
    found, exact = shifts_of(shifts, greys)
    torch.testing.assert_close(found, exact, rtol=0, atol=1e-6)


def difference(matrices: np.ndarray, exact: torch.Tensor, pixels: torch.Tensor) -> float:
    """Return the mean difference in steps of 8-bit pixels."""
    return 255 * (apply(matrices, pixels) - exact).abs().mean().item()


def test_matrices_come_close_to_hsv_on_images_like_photographs() -> None:
    pixels = torch.from_numpy(natural_images(64))
    shifts = darknet_shifts(random_draws(64), Augment())
    exact = distort(pixels, *torch.from_numpy(shifts).float().T, dim=-1)
    assert difference(shift_matrices(shifts), exact, pixels) < 4.2
    assert difference(shift_matrices(shifts * [0, 0, 1] + [0, 1, 0]), exact, pixels) > 5
    assert difference(shift_matrices(shifts * [-1, 1, 1]), exact, pixels) > 8


def test_matrices_come_close_to_hsv_on_a_photograph() -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    photograph = torch.from_numpy(datasets.load_sample_image("china.jpg")[::5, ::5] / np.float32(255))
    pixels = photograph.expand(20, *photograph.shape).contiguous()
    shifts = darknet_shifts(random_draws(20), Augment())
    exact = distort(pixels, *torch.from_numpy(shifts).float().T, dim=-1)
    assert difference(shift_matrices(shifts), exact, pixels) < 3
    assert 255 * (pixels - exact).abs().mean() > 12


def test_shifts_reach_both_ends_of_their_ranges() -> None:
    draws = np.zeros((4, DRAWS))
    draws[1:3, [HUE, SATURATE, EXPOSE]] = LAST
    draws[2:, [SATURATE_COIN, EXPOSE_COIN]] = 0.5
    ranges = DarknetAugment(hue=0.2, saturation=0.5, exposure=0.8)
    found = darknet_shifts(draws, Augment(darknet=ranges))
    np.testing.assert_allclose(found, [[-0.2, 2, 1.25], [0.2, 1, 1], [0.2, 1, 1], [-0.2, 0.5, 0.8]], rtol=1e-12)


def test_shifts_are_uniform_and_factors_half_reciprocals() -> None:
    hue, saturation, value = darknet_shifts(random_draws(20_000), Augment()).T
    assert hue.mean() == pytest.approx(0, abs=0.002)
    assert hue.std() == pytest.approx(0.2 / math.sqrt(12), rel=0.02)
    for factor in (saturation, value):
        assert (factor < 1).mean() == pytest.approx(0.5, abs=0.02)
        assert factor[factor < 1].mean() == pytest.approx(0.875, abs=0.005)
        assert (1 / factor[factor > 1]).mean() == pytest.approx(0.875, abs=0.005)
    assert abs(np.corrcoef(saturation, value)[0, 1]) < 0.03


def test_the_matrices_of_a_batch_are_those_of_its_shifts() -> None:
    draws = random_draws(5)
    found = darknet_matrices(draws, Augment())
    assert (found.shape, found.dtype) == ((5, 3, 4), np.float32)
    for row, shift in zip(found, darknet_shifts(draws, Augment()), strict=True):
        np.testing.assert_array_equal(row, shift_matrices(shift[None])[0])


@pytest.mark.parametrize("column", range(DRAWS))
def test_exactly_the_draws_of_the_colours_matter(column: int) -> None:
    draws = np.full((1, DRAWS), 0.3)
    changed = draws.copy()
    changed[0, column] = 0.8
    for matrices, augment, used in ((darknet_matrices, Augment(), DARKNET), (jitter_matrices, INCEPTION, JITTER)):
        same = np.array_equal(matrices(draws, augment), matrices(changed, augment))
        assert same == (column not in used)


def jitter(column: int, factor: float, pixels: torch.Tensor) -> torch.Tensor:
    """Change only the property of ``column``, by ``factor``."""
    draws = np.full((1, DRAWS), 0.5)
    draws[0, column] = (factor - 0.6) / 0.8
    return apply(jitter_matrices(draws, INCEPTION), pixels)


@pytest.mark.parametrize("factor", [0.6, 0.9, 1.39])
def test_brightness_equals_that_of_torchvision(factor: float) -> None:
    pixels = random_pixels(1, 9, 8, 3)
    expected = functional.adjust_brightness(pixels.permute(0, 3, 1, 2), factor).permute(0, 2, 3, 1)
    torch.testing.assert_close(jitter(BRIGHTNESS, factor, pixels), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("factor", [0.6, 0.9, 1.39])
def test_saturation_equals_that_of_torchvision(factor: float) -> None:
    pixels = random_pixels(1, 9, 8, 3)
    expected = functional.adjust_saturation(pixels.permute(0, 3, 1, 2), factor).permute(0, 2, 3, 1)
    torch.testing.assert_close(jitter(SATURATION, factor, pixels), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("factor", [0.6, 0.9, 1.39])
def test_contrast_equals_that_of_torchvision_where_the_mean_is_middle_grey(factor: float) -> None:
    half = 0.5 + 0.3 * (random_pixels(1, 9, 8, 3) - 0.5)
    pixels = torch.cat([half, 1 - half], dim=1)
    expected = functional.adjust_contrast(pixels.permute(0, 3, 1, 2), factor).permute(0, 2, 3, 1)
    torch.testing.assert_close(jitter(CONTRAST, factor, pixels), expected, rtol=0, atol=1e-4)


def test_jitter_is_brightness_then_contrast_then_saturation() -> None:
    pixels = 0.4 + 0.2 * random_pixels(1, 5, 5, 3)
    draws = random_draws(1)
    brightness, contrast, saturation = (0.6 + 0.8 * draws[0, column] for column in JITTER)
    expected = (pixels * brightness - 0.5) * contrast + 0.5
    luma = expected @ torch.tensor([0.299, 0.587, 0.114])
    expected = (luma[..., None] * (1 - saturation) + expected * saturation).float()
    found = apply(jitter_matrices(draws, INCEPTION), pixels)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_no_jitter_is_the_identity() -> None:
    plain = Augment(augmentation="inception")
    np.testing.assert_array_equal(jitter_matrices(random_draws(3), plain), np.tile(np.eye(3, 4), (3, 1, 1)))


@pytest.mark.parametrize("sides", [(1, 1), (5, 3), (3, 2), (8, 8)])
@pytest.mark.parametrize("count", [0, 1, 3])
def test_recolouring_equals_a_product_for_each_pixel(count: int, sides: tuple[int, int]) -> None:
    pixels = random_pixels(count, *sides, 3)
    matrices = 2 * random_pixels(count, 3, 4, seed=1) - 0.8
    found = recolour(pixels, matrices)
    assert found.shape == pixels.shape
    assert found.dtype == torch.float32
    for i in range(count):
        for y in range(sides[0]):
            for x in range(sides[1]):
                expected = matrices[i, :, :3].numpy() @ pixels[i, y, x].numpy() + matrices[i, :, 3].numpy()
                np.testing.assert_allclose(found[i, y, x], expected.clip(0, 1), rtol=0, atol=1e-6)


def test_recolouring_takes_pixels_in_any_layout_and_leaves_them_as_they_were() -> None:
    planes = random_pixels(2, 3, 6, 4)
    before = planes.clone()
    matrices = torch.from_numpy(darknet_matrices(random_draws(2), Augment()))
    found = recolour(planes.permute(0, 2, 3, 1), matrices)
    torch.testing.assert_close(found, recolour(planes.permute(0, 2, 3, 1).contiguous(), matrices), rtol=0, atol=0)
    torch.testing.assert_close(planes, before, rtol=0, atol=0)


def test_recolouring_never_reads_a_value_on_the_host() -> None:
    found = recolour(torch.empty(2, 8, 9, 3, device="meta"), torch.empty(2, 3, 4, device="meta"))
    assert found.shape == (2, 8, 9, 3)
