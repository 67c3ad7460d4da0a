"""Tests of random erasing against torchvision's erase, its statistics, and its chances."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.transforms.v2 import RandomErasing
from torchvision.transforms.v2.functional import erase

from backbones.data.augment.draws import DRAWS, ERASE
from backbones.data.augment.erasing import erase_, erase_boxes
from backbones.recipe import InceptionAugment

SIZE = 256
ALWAYS = InceptionAugment(erasing=1)
LAST = np.nextafter(1, 0)


def draw_boxes(count: int, inception: InceptionAugment = ALWAYS, *, size: int = SIZE) -> np.ndarray:
    return erase_boxes(np.random.default_rng(2).random((count, DRAWS)), inception, size=size)


def make_images(count: int, size: int = 24) -> torch.Tensor:
    images = torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(3)) + 1
    return images.contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("probability", [0.0, 0.25, 1.0])
def test_the_share_of_erased_images_is_the_probability(probability: float) -> None:
    boxes = draw_boxes(20_000, InceptionAugment(erasing=probability))
    erased = (boxes[:, 2] > 0).mean()
    assert erased == (pytest.approx(0.25, abs=0.01) if probability == 0.25 else probability)


def test_an_image_that_is_not_erased_has_zeros() -> None:
    boxes = draw_boxes(100, InceptionAugment(erasing=0.5))
    plain = boxes[boxes[:, 2] == 0]
    assert 20 < len(plain) < 80
    assert (plain == 0).all()


def test_areas_are_uniform_between_2_and_33_percent() -> None:
    boxes = draw_boxes(20_000, size=2048)
    shares = boxes[:, 2] * boxes[:, 3] / 2048**2
    assert (shares.min(), shares.max()) == pytest.approx((0.02, 0.33), abs=0.001)
    quantiles = np.linspace(0.05, 0.95, 19)
    assert np.quantile(shares, quantiles) == pytest.approx(0.02 + quantiles * 0.31, abs=0.005)


def test_ratios_of_small_boxes_are_log_uniform_between_0_3_and_3_3() -> None:
    boxes = draw_boxes(20_000, size=2048)
    boxes = boxes[boxes[:, 2] * boxes[:, 3] < 0.3 * 2048**2]
    ratios = np.log(boxes[:, 2] / boxes[:, 3])
    low, high = np.log([0.3, 3.3])
    quantiles = np.linspace(0.05, 0.95, 19)
    assert (ratios.min(), ratios.max()) == pytest.approx((low, high), abs=0.02)
    assert np.quantile(ratios, quantiles) == pytest.approx(low + quantiles * (high - low), abs=0.05)


def test_a_box_too_large_to_be_drawn_with_its_ratio_touches_both_sides_and_keeps_its_area() -> None:
    draws = np.zeros((2, DRAWS))
    draws[:, ERASE.start + 1] = LAST
    draws[:, ERASE.start + 2] = 0, LAST
    wide, high = erase_boxes(draws, ALWAYS, size=1000)
    assert wide.tolist() == [0, 0, 330, 1000]
    assert high.tolist() == [0, 0, 1000, 330]


def test_boxes_have_the_statistics_of_torchvision() -> None:
    torch.manual_seed(0)
    image = torch.zeros(3, SIZE, SIZE)
    transform = RandomErasing(p=1, scale=(0.02, 0.33), ratio=(0.3, 3.3))
    drawn = [transform.make_params([image]) for _ in range(6000)]
    theirs = np.array([[drawing[key] for key in "ijhw"] for drawing in drawn])
    ours = draw_boxes(20_000)
    assert ours.mean(axis=0) == pytest.approx(theirs.mean(axis=0), rel=0.05)
    assert ours.std(axis=0) == pytest.approx(theirs.std(axis=0), rel=0.05)
    assert np.corrcoef(ours.T) == pytest.approx(np.corrcoef(theirs.T), abs=0.05)


@given(size=st.integers(1, 300), draws=st.lists(st.floats(0, LAST), min_size=DRAWS, max_size=DRAWS))
def test_a_box_lies_inside_the_image(size: int, draws: list[float]) -> None:
    ((top, left, height, width),) = erase_boxes(np.array([draws]), ALWAYS, size=size)
    assert 0 <= top < top + height <= size
    assert 0 <= left < left + width <= size


@pytest.mark.parametrize(("column", "edge"), [(3, 0), (4, 1)])
def test_places_reach_from_edge_to_edge(column: int, edge: int) -> None:
    draws = np.full((2, DRAWS), 0.5)
    draws[:, ERASE.start + column] = 0, LAST
    first, last = erase_boxes(draws, ALWAYS, size=SIZE)
    assert first[edge] == 0
    assert last[edge] + last[edge + 2] == SIZE


def test_an_image_s_box_depends_on_its_own_draws_only() -> None:
    draws = np.random.default_rng(4).random((6, DRAWS))
    others = 1 - draws
    others[:, ERASE] = draws[:, ERASE]
    boxes = erase_boxes(draws, ALWAYS, size=SIZE)
    np.testing.assert_array_equal(erase_boxes(others, ALWAYS, size=SIZE), boxes)
    np.testing.assert_array_equal(erase_boxes(draws[2:3], ALWAYS, size=SIZE), boxes[2:3])


def test_erased_pixels_equal_torchvision() -> None:
    images = make_images(12)
    boxes = draw_boxes(12, InceptionAugment(erasing=0.6), size=24)
    pairs = zip(images, boxes.tolist(), strict=True)
    expected = torch.stack([erase(image, *box, v=torch.zeros(3, 1, 1)) for image, box in pairs])
    found = erase_(images.clone(), boxes)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert 0 < (found == 0).float().mean() < 0.33


def test_erasing_is_in_place_and_keeps_the_memory_format() -> None:
    images = make_images(2)
    found = erase_(images, np.array([[0, 0, 0, 0], [1, 2, 3, 4]]))
    assert found is images
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert (images[1] == 0).sum() == 3 * 3 * 4
    assert (images[0] > 0).all()


def test_every_image_needs_a_box() -> None:
    with pytest.raises(ValueError, match="zip"):
        erase_(make_images(3), np.zeros((2, 4), dtype=np.int64))
