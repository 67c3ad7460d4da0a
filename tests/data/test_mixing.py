"""Tests of mixing against loops over pixels, its chances, and its independence of the number of processes."""

from itertools import product
from typing import Literal, get_args

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from backbones.data.batch import Batch
from backbones.data.mixing import (
    Mixer,
    blend,
    blur_,
    choose_partners,
    cutmix,
    group_coins,
    mosaic,
    smooth_labels,
)
from backbones.data.paste import Patch
from backbones.dataset.random_numbers import Stream, uniforms
from backbones.errors import UserError
from backbones.recipe import Mixing

Sampling = Literal["group", "batch"]

SIZE, CLASSES = 20, 7
MIXUP = Mixing(mosaic=False, cutmix=False, mixup=True, prob=1)


def mixer(mixing: Mixing, *, seed: int, batch_size: int = 128) -> Mixer:
    return Mixer(mixing, CLASSES, seed, batch_size)


def make_batch(count: int, *, position: int = 0, size: int = SIZE) -> Batch:
    """Return images with a different value for each position, channel and pixel."""
    numbers = torch.arange(position, position + count)
    places = torch.rand(3, size, size, generator=torch.Generator().manual_seed(0))
    images = (numbers[:, None, None, None] + places).contiguous(memory_format=torch.channels_last)
    return Batch(images, numbers % CLASSES, 3, position)


def clone(batch: Batch) -> Batch:
    return batch._replace(images=batch.images.clone(), labels=batch.labels.clone())


def slow_mix(batch: Batch, patches: list[Patch], eps: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Mix pixel by pixel: look up the image, or the two images, of each pixel, and add its share of the target."""
    count, _, height, width = batch.images.shape
    images = torch.empty_like(batch.images)
    targets = torch.zeros(count, CLASSES, dtype=torch.float64)
    for i in range(count):
        own = [p for p in patches if p.image == i]
        for y in range(height):
            for x in range(width):
                sources = [i]
                for p in own:
                    if p.top <= y < p.bottom and p.left <= x < p.right:
                        sources = [p.partner] if p.weight == 1 else [i, p.partner]
                images[i, :, y, x] = sum(batch.images[source, :, y, x] for source in sources) / len(sources)
                for source, k in product(sources, range(CLASSES)):
                    share = 1 - eps if k == batch.labels[source] else eps / (CLASSES - 1)
                    targets[i, k] += share / len(sources) / (height * width)
    return images, targets


@pytest.mark.parametrize(
    "mixing",
    [
        Mixing(prob=1),
        Mixing(mosaic=False, prob=0.7),
        Mixing(cutmix=False, smoothing=0),
        Mixing(mixup=True, prob=1),
        Mixing(mixup=True, prob=1, sampling="batch"),
    ],
)
def test_images_and_targets_equal_a_loop_over_pixels(mixing: Mixing) -> None:
    mix = mixer(mixing, seed=1)
    batch = make_batch(9, position=27)
    patches = mix.patches(3, 27, 9, size=(SIZE, SIZE))
    images, targets = slow_mix(batch, patches, mixing.smoothing)
    found_images, found_targets = mix(clone(batch))
    assert patches
    torch.testing.assert_close(found_images, images, rtol=0, atol=0)
    torch.testing.assert_close(found_targets.double(), targets, rtol=0, atol=1e-6)
    assert found_images.is_contiguous(memory_format=torch.channels_last)


@given(count=st.integers(1, 40), position=st.integers(0, 100), seed=st.integers(0, 2**63 - 1), eps=st.floats(0, 0.9))
def test_targets_sum_to_one(count: int, position: int, seed: int, eps: float) -> None:
    mix = mixer(Mixing(mixup=True, prob=0.8, smoothing=eps), seed=seed)
    _, targets = mix(make_batch(count, position=position, size=8))
    assert targets.shape == (count, CLASSES)
    assert targets.min() >= 0
    torch.testing.assert_close(targets.sum(dim=1), torch.ones(count))


@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("mixing", [Mixing(), Mixing(prob=1, sampling="batch"), Mixing(mixup=True, prob=1, blur=5)])
def test_the_mixed_global_batch_is_the_same_for_any_number_of_processes(
    mixing: Mixing, ranks: int, accumulation: int
) -> None:
    mix = mixer(mixing, seed=9)
    plain = make_batch(128, position=256)
    images, targets = mix(clone(plain))
    assert not torch.equal(images, plain.images)
    width = 128 // ranks // accumulation
    parts = [mix(make_batch(width, position=start)) for start in range(256, 384, width)]
    rounding = 1e-6 if mixing.blur else 0  # a convolution may sum in another order for another number of images
    torch.testing.assert_close(torch.cat([part[0] for part in parts]), images, rtol=rounding, atol=0)
    torch.testing.assert_close(torch.cat([part[1] for part in parts]), targets, rtol=0, atol=0)


def test_another_seed_epoch_or_position_mixes_differently() -> None:
    places = [(1, 3, 0), (2, 3, 0), (1, 4, 0), (1, 3, 32)]
    drawn = [mixer(Mixing(), seed=seed).patches(e, p, 32, size=(SIZE, SIZE)) for seed, e, p in places]
    for number, patches in enumerate(drawn):
        assert patches not in drawn[:number]


def test_half_stays_plain_and_the_rest_is_half_cutmix_half_mosaic() -> None:
    count = 40_000
    patches = mixer(Mixing(), seed=0).patches(0, 0, count, size=(256, 256))
    per_image = np.bincount([patch.image for patch in patches], minlength=count)
    shares = [(per_image == n).mean() for n in (0, 1, 3)]
    assert shares == pytest.approx([0.5, 0.25, 0.25], abs=0.02)


@pytest.mark.parametrize("sampling", get_args(Sampling))
@pytest.mark.parametrize(("cut", "mosaics", "mean"), [on for on in product((False, True), repeat=3) if any(on)])
def test_the_kinds_that_are_on_share_the_mixed_images_evenly(
    sampling: Sampling, cut: bool, mosaics: bool, mean: bool
) -> None:
    mixing = Mixing(cutmix=cut, mosaic=mosaics, mixup=mean, prob=0.8, sampling=sampling)
    mix, count = mixer(mixing, seed=0, batch_size=4), 8_000
    drawn = [mix.patches(0, start, 4, size=(64, 64)) for start in range(0, count, 4)]
    shares = np.array([kinds_of(patches) for patches in drawn]).sum(axis=0) / count
    expected = 0.8 * np.array([cut, mosaics, mean]) / (cut + mosaics + mean)
    np.testing.assert_allclose(shares, expected, rtol=0, atol=0.04)
    assert shares[expected == 0].sum() == 0


def kinds_of(patches: list[Patch]) -> list[int]:
    """Count images with cutmix, mosaic and mixup: one patch, three, or one that leaves half of what is below."""
    number = np.bincount([patch.image for patch in patches], minlength=1)
    mixups = sum(patch.weight == 0.5 for patch in patches)
    return [int((number == 1).sum()) - mixups, int((number == 3).sum()), mixups]


def test_mixup_is_the_mean_of_two_images_and_of_their_targets() -> None:
    batch = make_batch(16)
    images, targets = mixer(MIXUP, seed=0)(clone(batch))
    plain = smooth_labels(batch.labels, CLASSES, 0.1)
    for i in range(16):
        errors = [(images[i] - (batch.images[i] + other) / 2).abs().max().item() for other in batch.images]
        partner = int(np.argmin(errors))
        assert partner != i
        assert errors[partner] < 1e-5
        torch.testing.assert_close(targets[i], (plain[i] + plain[partner]) / 2)


@pytest.mark.parametrize(("cut", "mosaics"), [(True, False), (False, True)])
def test_batch_sampling_gives_all_images_of_a_step_one_place(cut: bool, mosaics: bool) -> None:
    mixing = Mixing(cutmix=cut, mosaic=mosaics, prob=1, sampling="batch")
    mix = mixer(mixing, seed=3, batch_size=48)
    places = [
        {
            tuple(patch[2:])
            for start in range(step * 48, step * 48 + 48, 16)
            for patch in mix.patches(1, start, 16, size=(64, 64))
        }
        for step in range(5)
    ]
    assert [len(each) for each in places] == [3 if mosaics else 1] * 5
    assert len(set.union(*places)) == sum(len(each) for each in places)


def test_batch_sampling_decides_for_all_images_of_a_step_at_once() -> None:
    mix = mixer(Mixing(sampling="batch", prob=0.3), seed=0, batch_size=6)
    mixed = [
        {patch.image + 3 * half for half in (0, 1) for patch in mix.patches(0, 6 * step + 3 * half, 3, size=(8, 8))}
        for step in range(2000)
    ]
    assert {len(images) for images in mixed} == {0, 6}
    assert np.mean([len(images) == 6 for images in mixed]) == pytest.approx(0.3, abs=0.04)


def test_batch_sampling_still_draws_partners_for_each_image() -> None:
    patches = mixer(Mixing(mosaic=False, prob=1, sampling="batch"), seed=0).patches(0, 32, 16, size=(64, 64))
    steps = {(patch.partner - patch.image) % 16 for patch in patches}
    assert len(steps) > 4


def test_one_coin_decides_for_four_consecutive_positions_of_the_epoch() -> None:
    patches = mixer(Mixing(), seed=0).patches(0, 6, 94, size=(64, 64))
    mixed = {patch.image + 6 for patch in patches}
    groups = [{position in mixed for position in range(start, start + 4)} for start in range(8, 100, 4)]
    assert all(len(group) == 1 for group in groups)
    assert 4 < sum(group == {True} for group in groups) < len(groups) - 4
    np.testing.assert_array_equal(group_coins(0, 0, 6, 10), group_coins(0, 0, 0, 16)[6:])


RECORDED = {
    Mixing(): [
        [(0, 10, 0, 97, 118, 256), (0, 1, 118, 0, 256, 97), (0, 5, 118, 97, 256, 256)],
        [(1, 5, 0, 75, 98, 256), (1, 6, 98, 0, 256, 75), (1, 7, 98, 75, 256, 256)],
        [(2, 1, 0, 92, 114, 256), (2, 0, 114, 0, 256, 92), (2, 10, 114, 92, 256, 256)],
        [(3, 5, 23, 105, 134, 216)],
        [(4, 9, 0, 121, 56, 256), (4, 0, 56, 0, 256, 121), (4, 13, 56, 121, 256, 256)],
        [(5, 8, 79, 56, 226, 254)],
        [(6, 1, 82, 2, 205, 130)],
        [(7, 5, 0, 115, 147, 256), (7, 12, 147, 0, 256, 115), (7, 13, 147, 115, 256, 256)],
        [(12, 14, 38, 25, 121, 162)],
        [(13, 7, 9, 61, 210, 240)],
        [(14, 12, 0, 190, 126, 256), (14, 8, 126, 0, 256, 190), (14, 8, 126, 190, 256, 256)],
        [(15, 6, 8, 154, 201, 252)],
    ],
    Mixing(mosaic=False): [
        [(0, 10, 75, 116, 207, 230)],
        [(1, 5, 71, 156, 186, 252)],
        [(2, 1, 38, 112, 166, 222)],
        [(3, 5, 23, 105, 134, 216)],
        [(4, 9, 102, 75, 182, 209)],
        [(5, 8, 79, 56, 226, 254)],
        [(6, 1, 82, 2, 205, 130)],
        [(7, 5, 2, 28, 158, 157)],
        [(12, 14, 38, 25, 121, 162)],
        [(13, 7, 9, 61, 210, 240)],
        [(14, 12, 99, 7, 238, 199)],
        [(15, 6, 8, 154, 201, 252)],
    ],
}
"""Patches of seed 0 for the first 16 positions, before there was mixup: image, partner, rectangle."""


@pytest.mark.parametrize("mixing", RECORDED)
def test_recipes_of_before_mixup_draw_the_same_patches_as_then(mixing: Mixing) -> None:
    patches = mixer(mixing, seed=0).patches(0, 0, 16, size=(256, 256))
    assert [tuple(patch) for patch in patches] == [(*patch, 1.0) for image in RECORDED[mixing] for patch in image]


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


@pytest.mark.parametrize("mixing", [Mixing(prob=1), Mixing(prob=1, cutmix=False), MIXUP])
def test_a_batch_of_one_is_left_as_it_is(mixing: Mixing) -> None:
    batch = make_batch(1)
    images, targets = mixer(mixing, seed=0)(clone(batch))
    torch.testing.assert_close(images, batch.images, rtol=0, atol=0)
    torch.testing.assert_close(targets, smooth_labels(batch.labels, CLASSES, 0.1))


@pytest.mark.parametrize("mixing", [Mixing(mosaic=False, cutmix=False), Mixing(prob=0)])
def test_nothing_is_mixed_where_nothing_is_asked_for(mixing: Mixing) -> None:
    batch = make_batch(16)
    images, targets = mixer(mixing, seed=0)(clone(batch))
    torch.testing.assert_close(images, batch.images, rtol=0, atol=0)
    torch.testing.assert_close(targets, smooth_labels(batch.labels, CLASSES, 0.1), rtol=0, atol=0)


def gaussian(side: int) -> np.ndarray:
    """Return the one-dimensional kernel, with the width that OpenCV derives from its side when sigma is 0."""
    sigma = 0.3 * ((side - 1) / 2 - 1) + 0.8
    weights = np.exp(-((np.arange(side) - side // 2) ** 2) / (2 * sigma**2))
    return weights / weights.sum()


def slow_blur(images: torch.Tensor, side: int) -> np.ndarray:
    """Sum shifted copies of the images, mirrored at the border without the edge."""
    kernel, half = np.outer(gaussian(side), gaussian(side)), side // 2
    height, width = images.shape[-2:]
    padded = np.pad(images.numpy().astype(np.float64), ((0, 0), (0, 0), (half, half), (half, half)), mode="reflect")
    places = product(range(side), repeat=2)
    return sum((kernel[y, x] * padded[..., y : y + height, x : x + width] for y, x in places), np.zeros(images.shape))


@pytest.mark.parametrize("side", [3, 9, 15])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_blur_is_a_gaussian_of_the_width_that_opencv_derives_from_its_side(
    side: int, layout: torch.memory_format
) -> None:
    images = torch.rand(4, 3, 17, 24, generator=torch.Generator().manual_seed(0)).contiguous(memory_format=layout)
    expected = images.clone()
    expected[[1, 3]] = torch.from_numpy(slow_blur(images[[1, 3]], side)).float()
    found = blur_(images, [1, 3], side)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(found[[0, 2]], expected[[0, 2]], rtol=0, atol=0)
    assert found is images


def test_what_is_blurred_is_the_mixed_image() -> None:
    plain, targets = mixer(Mixing(prob=1), seed=2)(make_batch(32))
    blurred, same_targets = mixer(Mixing(prob=1, blur=9), seed=2)(make_batch(32))
    changed = (plain != blurred).flatten(1).any(dim=1)
    assert 0 < changed.sum() < 32
    expected = torch.from_numpy(slow_blur(plain[changed], 9)).float()
    torch.testing.assert_close(blurred[changed], expected, rtol=0, atol=1e-4)
    torch.testing.assert_close(same_targets, targets, rtol=0, atol=0)
    assert blurred.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("sampling", get_args(Sampling))
def test_a_quarter_is_blurred_mixed_or_not(sampling: Sampling) -> None:
    mix = mixer(Mixing(blur=3, sampling=sampling), seed=0)
    count, per_batch = 12_800, 128
    blurred = np.zeros(count, dtype=bool)
    mixed = np.zeros(count, dtype=bool)
    for start in range(0, count, per_batch):
        blurred[[start + image for image in mix.choose_blurred(0, start, per_batch)]] = True
        mixed[[start + patch.image for patch in mix.patches(0, start, per_batch, size=(8, 8))]] = True
    assert blurred[mixed].mean() == pytest.approx(0.25, abs=0.02)
    assert blurred[~mixed].mean() == pytest.approx(0.25, abs=0.02)


def test_another_seed_epoch_or_position_blurs_other_images() -> None:
    places = [(1, 3, 0), (2, 3, 0), (1, 4, 0), (1, 3, 32)]
    drawn = [mixer(Mixing(blur=3), seed=seed).choose_blurred(e, p, 32) for seed, e, p in places]
    for number, images in enumerate(drawn):
        assert images not in drawn[:number]


@pytest.mark.parametrize("columns", [1, 4, 8])
@pytest.mark.parametrize("stream", ["order", "augment", "mix", "coin"])
def test_the_blur_does_not_follow_from_another_decision(stream: Stream, columns: int) -> None:
    blurred = mixer(Mixing(blur=3), seed=0).choose_blurred(0, 0, 64)
    others = uniforms(0, 0, 0, 64, columns, stream=stream)
    assert all(blurred != np.flatnonzero(column < 0.25).tolist() for column in others.T)


@pytest.mark.parametrize("rows", [[], [0]])
def test_a_blur_wider_than_the_mirrored_image_is_refused(rows: list[int]) -> None:
    assert blur_(torch.zeros(1, 3, 8, 9), rows, 15).shape == (1, 3, 8, 9)
    with pytest.raises(
        UserError, match=r"mixing\.blur=17 is too large for images of 8 x 9 pixels\.\nUse .*=15 or less"
    ):
        blur_(torch.zeros(1, 3, 8, 9), rows, 17)


@pytest.mark.gpu
@pytest.mark.parametrize("sampling", get_args(Sampling))
def test_a_gpu_is_never_waited_for(sampling: Sampling) -> None:
    mix = mixer(Mixing(mixup=True, prob=1, sampling=sampling, blur=5), seed=4)
    batch = make_batch(32)
    images, targets = mix(clone(batch))
    on_gpu = batch._replace(images=batch.images.cuda(), labels=batch.labels.cuda())
    torch.cuda.set_sync_debug_mode("error")
    try:
        found_images, found_targets = mix(on_gpu)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(found_images.cpu(), images, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(found_targets.cpu(), targets)


def test_targets_are_blended_by_area_and_weight() -> None:
    found = blend(torch.eye(3), [Patch(0, 1, 0, 0, 2, 5, 0.5)], 10)
    torch.testing.assert_close(found, torch.tensor([[0.5, 0.5, 0], [0, 1, 0], [0, 0, 1]]))


def test_targets_are_blended_by_area() -> None:
    found = blend(torch.eye(3), [Patch(0, 1, 0, 0, 3, 2), Patch(0, 2, 3, 0, 4, 1)], 10)
    torch.testing.assert_close(found, torch.tensor([[0.3, 0.6, 0.1], [0, 1, 0], [0, 0, 1]]))


def test_labels_are_smoothed_as_in_darknet() -> None:
    found = smooth_labels(torch.tensor([1, 0]), 5, 0.2)
    torch.testing.assert_close(found, torch.tensor([[0.05, 0.8, 0.05, 0.05, 0.05], [0.8, 0.05, 0.05, 0.05, 0.05]]))
    assert smooth_labels(torch.tensor([0, 0]), 1, 0.2).tolist() == [[1.0], [1.0]]
