"""Tests of mixing against loops over pixels, its chances, and its independence of the number of processes."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from backbones.data.loader import Batch
from backbones.data.mixing import (
    Mixer,
    Patch,
    blend,
    choose_partners,
    cutmix,
    group_coins,
    mosaic,
    paste_,
    smooth_labels,
)
from backbones.recipe import Mixing

SIZE, CLASSES = 20, 7


def make_batch(count: int, *, position: int = 0, size: int = SIZE) -> Batch:
    """Return images whose every pixel tells the position, channel and place."""
    numbers = torch.arange(position, position + count)
    places = torch.rand(3, size, size, generator=torch.Generator().manual_seed(0))
    images = (numbers[:, None, None, None] + places).contiguous(memory_format=torch.channels_last)
    return Batch(images, numbers % CLASSES, 3, position)


def clone(batch: Batch) -> Batch:
    return batch._replace(images=batch.images.clone(), labels=batch.labels.clone())


def slow_mix(batch: Batch, patches: list[Patch], eps: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Ask for every pixel which image it comes from; its target counts for one pixel."""
    count, _, height, width = batch.images.shape
    images = torch.empty_like(batch.images)
    targets = torch.zeros(count, CLASSES, dtype=torch.float64)
    for i in range(count):
        own = [p for p in patches if p.image == i]
        for y in range(height):
            for x in range(width):
                source = i
                for p in own:
                    if p.top <= y < p.bottom and p.left <= x < p.right:
                        source = p.partner
                images[i, :, y, x] = batch.images[source, :, y, x]
                for k in range(CLASSES):
                    share = 1 - eps if k == batch.labels[source] else eps / (CLASSES - 1)
                    targets[i, k] += share / (height * width)
    return images, targets


@pytest.mark.parametrize("mixing", [Mixing(prob=1), Mixing(mosaic=False, prob=0.7), Mixing(cutmix=False, smoothing=0)])
def test_images_and_targets_equal_a_loop_over_pixels(mixing: Mixing) -> None:
    mixer = Mixer(mixing, CLASSES, seed=1)
    batch = make_batch(9, position=27)
    patches = mixer.patches(3, 27, 9, size=(SIZE, SIZE))
    images, targets = slow_mix(batch, patches, mixing.smoothing)
    found_images, found_targets = mixer(clone(batch))
    assert patches
    torch.testing.assert_close(found_images, images, rtol=0, atol=0)
    torch.testing.assert_close(found_targets.double(), targets, rtol=0, atol=1e-6)
    assert found_images.is_contiguous(memory_format=torch.channels_last)


@given(count=st.integers(1, 40), position=st.integers(0, 100), seed=st.integers(0, 2**63 - 1), eps=st.floats(0, 0.9))
def test_targets_sum_to_one(count: int, position: int, seed: int, eps: float) -> None:
    _, targets = Mixer(Mixing(prob=0.8, smoothing=eps), CLASSES, seed)(make_batch(count, position=position, size=8))
    assert targets.shape == (count, CLASSES)
    assert targets.min() >= 0
    torch.testing.assert_close(targets.sum(dim=1), torch.ones(count))


@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_the_mixed_global_batch_is_the_same_for_any_number_of_processes(ranks: int, accumulation: int) -> None:
    mixer = Mixer(Mixing(), CLASSES, seed=9)
    images, targets = mixer(make_batch(128, position=256))
    width = 128 // ranks // accumulation
    parts = [mixer(make_batch(width, position=start)) for start in range(256, 384, width)]
    torch.testing.assert_close(torch.cat([part[0] for part in parts]), images, rtol=0, atol=0)
    torch.testing.assert_close(torch.cat([part[1] for part in parts]), targets, rtol=0, atol=0)


def test_another_seed_epoch_or_position_mixes_differently() -> None:
    places = [(1, 3, 0), (2, 3, 0), (1, 4, 0), (1, 3, 32)]
    drawn = [Mixer(Mixing(), CLASSES, seed).patches(e, p, 32, size=(SIZE, SIZE)) for seed, e, p in places]
    for number, patches in enumerate(drawn):
        assert patches not in drawn[:number]


def test_half_stays_plain_and_the_rest_is_half_cutmix_half_mosaic() -> None:
    count = 40_000
    patches = Mixer(Mixing(), CLASSES, seed=0).patches(0, 0, count, size=(256, 256))
    per_image = np.bincount([patch.image for patch in patches], minlength=count)
    shares = [(per_image == n).mean() for n in (0, 1, 3)]
    assert shares == pytest.approx([0.5, 0.25, 0.25], abs=0.02)


def test_one_coin_decides_for_four_consecutive_positions_of_the_epoch() -> None:
    patches = Mixer(Mixing(), CLASSES, seed=0).patches(0, 6, 94, size=(64, 64))
    mixed = {patch.image + 6 for patch in patches}
    groups = [{position in mixed for position in range(start, start + 4)} for start in range(8, 100, 4)]
    assert all(len(group) == 1 for group in groups)
    assert 4 < sum(group == {True} for group in groups) < len(groups) - 4
    np.testing.assert_array_equal(group_coins(0, 0, 6, 10), group_coins(0, 0, 0, 16)[6:])


EXTREMES = [(0.0, "low"), (np.nextafter(1, 0), "high")]


@pytest.mark.parametrize(("u", "end"), EXTREMES)
def test_cutmix_has_the_sides_and_places_of_darknet(u: float, end: str) -> None:
    side = {"low": int(0.3 * 256), "high": int(0.8 * 256)}[end]
    (patch,) = cutmix(0, np.array([5]), np.array([u, u, 0.0, np.nextafter(1, 0)]), (256, 256))
    assert (patch.bottom - patch.top, patch.right - patch.left) == (side, side)
    assert (patch.top, patch.left) == (0, 256 - side - 1)
    assert (patch.image, patch.partner) == (0, 5)


@pytest.mark.parametrize(("u", "end"), EXTREMES)
def test_mosaic_has_the_quadrants_of_darknet(u: float, end: str) -> None:
    cut = {"low": int(0.2 * 256), "high": int(0.8 * 256)}[end]
    patches = mosaic(0, np.array([5, 6, 7]), np.array([u, u]), (256, 256))
    assert patches == [
        Patch(0, 5, 0, cut, cut, 256),
        Patch(0, 6, cut, 0, 256, cut),
        Patch(0, 7, cut, cut, 256, 256),
    ]


def test_sizes_are_integers_of_the_range_with_equal_chances() -> None:
    draws = np.random.default_rng(0).random((20_000, 4))
    patches = [cutmix(0, np.array([1]), row, (10, 10))[0] for row in draws]
    heights = np.bincount([patch.bottom - patch.top for patch in patches])
    assert np.flatnonzero(heights).tolist() == [3, 4, 5, 6, 7, 8]
    np.testing.assert_allclose(heights[3:] / 20_000, 1 / 6, atol=0.01)


@given(count=st.integers(1, 70))
def test_partners_are_others_of_the_same_block_and_all_of_them_occur(count: int) -> None:
    draws = np.random.default_rng(count).random((count, 400))
    partners = choose_partners(draws)
    blocks = max(1, count // 16)
    for image in range(count):
        block = min(image // 16, blocks - 1)
        members = set(range(block * 16, count if block == blocks - 1 else block * 16 + 16))
        assert set(partners[image].tolist()) == (members - {image} or {image})


def test_a_batch_of_one_is_left_as_it_is() -> None:
    batch = make_batch(1)
    images, targets = Mixer(Mixing(prob=1), CLASSES, seed=0)(clone(batch))
    torch.testing.assert_close(images, batch.images, rtol=0, atol=0)
    torch.testing.assert_close(targets, smooth_labels(batch.labels, CLASSES, 0.1))


@pytest.mark.parametrize("mixing", [Mixing(mosaic=False, cutmix=False), Mixing(prob=0)])
def test_nothing_is_mixed_where_nothing_is_asked_for(mixing: Mixing) -> None:
    batch = make_batch(16)
    images, targets = Mixer(mixing, CLASSES, seed=0)(clone(batch))
    torch.testing.assert_close(images, batch.images, rtol=0, atol=0)
    torch.testing.assert_close(targets, smooth_labels(batch.labels, CLASSES, 0.1), rtol=0, atol=0)


def test_partners_are_pasted_as_they_were_before_mixing() -> None:
    images = torch.arange(3.0)[:, None, None, None].expand(3, 1, 2, 2).clone()
    found = paste_(images, [Patch(0, 1, 0, 0, 2, 2), Patch(1, 2, 0, 0, 2, 2), Patch(2, 0, 0, 0, 2, 1)])
    assert found.flatten(1).tolist() == [[1, 1, 1, 1], [2, 2, 2, 2], [0, 2, 0, 2]]
    assert found is images


def test_targets_are_blended_by_area() -> None:
    found = blend(torch.eye(3), [Patch(0, 1, 0, 0, 3, 2), Patch(0, 2, 3, 0, 4, 1)], 10)
    torch.testing.assert_close(found, torch.tensor([[0.3, 0.6, 0.1], [0, 1, 0], [0, 0, 1]]))


def test_labels_are_smoothed_as_in_darknet() -> None:
    found = smooth_labels(torch.tensor([1, 0]), 5, 0.2)
    torch.testing.assert_close(found, torch.tensor([[0.05, 0.8, 0.05, 0.05, 0.05], [0.8, 0.05, 0.05, 0.05, 0.05]]))
    assert smooth_labels(torch.tensor([0, 0]), 1, 0.2).tolist() == [[1.0], [1.0]]
