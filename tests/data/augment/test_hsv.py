"""Tests of the reference itself: darknet's recorded numbers, torch's own resize, and Python's own HSV."""

import colorsys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from backbones.data.augment.hsv import distort
from tests.data.augment.darknet_image import centre_crop, crop, flip, resize, resize_min, rotate_crop

RECORDED = np.load(Path(__file__).parents[2] / "fixtures" / "darknet" / "image_ops.npz")
OPERATIONS = RECORDED["ops"].tolist()


def random_images(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def run(operation: str, image: torch.Tensor) -> torch.Tensor:
    """Do what a line such as "crop -3 -2 20 18" asks for; darknet names the width before the height."""
    name, *words = operation.split()
    n = [float(word) for word in words]
    whole = [int(number) for number in n]
    operations: dict[str, Callable[[], torch.Tensor]] = {
        "resize": lambda: resize(image, whole[1], whole[0]),
        "resize_min": lambda: resize_min(image, whole[0]),
        "crop": lambda: crop(image, whole[1], whole[0], height=whole[3], width=whole[2]),
        "valid": lambda: centre_crop(image, whole[0]),
        "flip": lambda: flip(image),
        "rotcrop": lambda: rotate_crop(
            image, (whole[3], whole[2]), radians=n[0], scale=n[1], shift=(n[4], n[5]), aspect=n[6]
        ),
        "distort": lambda: distort(image, *n),
    }
    return operations[name]()


@pytest.mark.parametrize("number", range(len(OPERATIONS)), ids=OPERATIONS)
def test_an_operation_equals_the_numbers_of_darknet(number: int) -> None:
    found = run(OPERATIONS[number], torch.from_numpy(RECORDED["image"]))
    expected = torch.from_numpy(RECORDED[f"op/{number:02d}"])
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("old", [(1, 9), (5, 1), (6, 11)])
@pytest.mark.parametrize("new", [(1, 7), (8, 1), (3, 4), (13, 30)])
def test_resize_equals_torch_with_aligned_corners(old: tuple[int, int], new: tuple[int, int]) -> None:
    image = random_images(3, *old)
    expected = F.interpolate(image[None], new, mode="bilinear", align_corners=True)[0]
    torch.testing.assert_close(resize(image, *new), expected, rtol=0, atol=1e-12)


def test_the_long_side_is_truncated() -> None:
    assert resize_min(random_images(3, 10, 29), 7).shape == (3, 7, 20)
    assert resize_min(random_images(3, 29, 10), 7).shape == (3, 20, 7)


def test_the_centre_crop_shows_the_given_share_of_the_short_side() -> None:
    image = random_images(3, 40, 67)
    expected = resize_min(image, 32)[:, 2:30, 12:40]
    torch.testing.assert_close(centre_crop(image, 28, crop_pct=0.875), expected, rtol=0, atol=0)


SHIFTS = [(0.0, 1.0, 1.0), (0.09, 1.3, 0.8), (-0.1, 0.75, 1.33), (0.5, 1.2, 1.0), (-0.37, 0.0, 1.0)]


def colours() -> torch.Tensor:
    """Return random colours, and colours with two or three equal channels.

    Shape: (3, 20, 20).
    """
    levels = torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64)
    return torch.cat([torch.cartesian_prod(levels, levels, levels), random_images(373, 3)]).T.reshape(3, 20, 20)


@pytest.mark.parametrize("shift", SHIFTS)
def test_distort_equals_a_loop_over_pixels_in_hsv(shift: tuple[float, float, float]) -> None:
    expected = []
    for red, green, blue in colours().reshape(3, -1).T.tolist():
        hue, saturation, value = colorsys.rgb_to_hsv(red, green, blue)
        changed = colorsys.hsv_to_rgb((hue + shift[0]) % 1, saturation * shift[1], value * shift[2])
        expected.append([min(1.0, max(0.0, channel)) for channel in changed])
    found = distort(colours(), *shift).reshape(3, -1).T
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-12)


@pytest.mark.parametrize("dim", [-3, 1, -1])
def test_a_batch_is_distorted_image_by_image(dim: int) -> None:
    images = random_images(len(SHIFTS), 3, 4, 5)
    each = [distort(image, *shift) for image, shift in zip(images, SHIFTS, strict=True)]
    batch = images.permute(0, 2, 3, 1) if dim == -1 else images
    found = distort(batch, *torch.tensor(SHIFTS, dtype=torch.float64).T, dim=dim)
    expected = torch.stack(each)
    torch.testing.assert_close(found.permute(0, 3, 1, 2) if dim == -1 else found, expected, rtol=0, atol=1e-12)


def test_distort_never_reads_a_value_on_the_host() -> None:
    shifts = torch.empty(3, 2, device="meta")
    assert distort(torch.empty(2, 8, 9, 3, device="meta"), *shifts, dim=-1).shape == (2, 8, 9, 3)


def test_distort_leaves_its_input_as_it_was() -> None:
    images = random_images(2, 3, 4, 5)
    before = images.clone()
    distort(images, 0.1, 1.3, 1.3)
    torch.testing.assert_close(images, before, rtol=0, atol=0)
