"""Tests of DALI against the reference, of its repeatability, and of what it does with bad files."""

from itertools import islice
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from PIL import Image

from backbones.data import reference
from backbones.data.crop import View
from backbones.data.feed import Backend, Feed
from backbones.data.index import Index, scan_folder
from backbones.data.order import Plan, Shares, training_plans, validation_plans
from backbones.errors import UserError
from backbones.recipe import Augment, Interpolation, Preprocess

pytest.importorskip("nvidia.dali")
from backbones.data import pipeline  # needs DALI

SIZE = 48


def view(*, train: bool, interpolation: Interpolation = "bilinear", crop_pct: float = 0.9) -> View:
    return View(SIZE, Preprocess(crop_pct, interpolation), Augment() if train else None)


def pixels_of(images: Backend, index: Index, plans, how: View, *, workers: int = 2) -> np.ndarray:
    feed = Feed(index, how, 8, torch.device("cpu"), workers)
    return np.concatenate([image.numpy().astype(int) for _, image in images(iter(plans), feed)])


def training(index: Index, count: int, *, epoch: int = 0, step: int = 0) -> list[Plan]:
    return list(islice(training_plans(len(index), Shares(8), seed=3, epoch=epoch, step=step), count))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("crop_pct", [1.0, 0.887])
def test_validation_pixels_equal_the_reference(split: Index, interpolation: Interpolation, crop_pct: float) -> None:
    how = view(train=False, interpolation=interpolation, crop_pct=crop_pct)
    plans = list(validation_plans(len(split), 8))
    difference = np.abs(
        pixels_of(pipeline.images, split, plans, how) - pixels_of(reference.images, split, plans, how)
    ).mean(axis=(1, 2, 3))
    assert len(difference) == len(split)
    assert difference.max() <= 0.5


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_training_pixels_equal_the_reference_with_the_same_draws_only(split: Index, interpolation) -> None:
    how = view(train=True, interpolation=interpolation)
    plans = training(split, 5)
    ours = pixels_of(pipeline.images, split, plans, how)
    theirs = pixels_of(reference.images, split, plans, how)
    shuffled = [plan._replace(draws=np.roll(plan.draws, 1, axis=0)) for plan in plans]
    others = pixels_of(reference.images, split, shuffled, how)
    same, other = (np.abs(ours - x).mean(axis=(1, 2, 3)) for x in (theirs, others))
    assert same.max() <= 1.0
    assert np.median(other) > 10


@pytest.mark.parametrize("column", [0, 1, 2, 3, 4])
def test_every_draw_matters(split: Index, column: int) -> None:
    plans = training(split, 1)
    draws = plans[0].draws.copy()
    draws[:, column] = (draws[:, column] + 0.5) % 1
    one, other = (
        pixels_of(pipeline.images, split, p, view(train=True)) for p in (plans, [plans[0]._replace(draws=draws)])
    )
    assert np.median(np.abs(one - other).mean(axis=(1, 2, 3))) > 1


MODES = [
    ("grey.jpg", {"mode": "L"}),
    ("cmyk.jpg", {"mode": "CMYK"}),
    ("png_inside.jpg", {"kind": "PNG"}),
    ("rgba.png", {"mode": "RGBA", "kind": "PNG"}),
    ("bmp.bmp", {"kind": "BMP"}),
    ("webp.webp", {"kind": "WEBP"}),
    ("tiff.tif", {"kind": "TIFF"}),
]


@pytest.mark.parametrize("train", [False, True])
def test_other_modes_and_formats_equal_the_reference(tmp_path: Path, save, train: bool) -> None:
    for seed, (name, how) in enumerate(MODES):
        save(tmp_path / "a" / name, 83, 61, seed=seed, **how)
    index = scan_folder(tmp_path)
    plans = [Plan(0, 0, np.arange(len(MODES)), np.random.default_rng(1).random((len(MODES), 5)))]
    ours, theirs = (
        pixels_of(images, index, plans, view(train=train)) for images in (pipeline.images, reference.images)
    )
    difference = np.abs(ours - theirs).mean(axis=(1, 2, 3))
    assert dict(zip(index.files, difference <= 0.8, strict=True)) == dict.fromkeys(index.files, True)


def test_exif_orientation_is_ignored(tmp_path: Path, save) -> None:
    path = save(tmp_path / "a" / "1.jpg", 90, 60, seed=1)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(path).save(tmp_path / "a" / "2.jpg", quality=92, exif=exif)
    Image.open(path).save(tmp_path / "a" / "3.jpg", quality=92)
    for train in (False, True):
        plan = Plan(0, 0, np.array([1, 2]), np.full((2, 5), 0.4))
        turned, upright = pixels_of(pipeline.images, scan_folder(tmp_path), [plan], view(train=train))
        np.testing.assert_array_equal(turned, upright)


@pytest.mark.parametrize("step", [1, 2, 4])
def test_a_stream_resumed_anywhere_equals_the_uninterrupted_one(split: Index, step: int) -> None:
    full = pixels_of(pipeline.images, split, training(split, 9), view(train=True))
    resumed = pixels_of(pipeline.images, split, training(split, 9 - step, step=step), view(train=True))
    np.testing.assert_array_equal(resumed, full[step * 8 :])


def test_the_number_of_threads_does_not_change_a_pixel(split: Index) -> None:
    plans = training(split, 5)
    one, two = (pixels_of(pipeline.images, split, plans, view(train=True), workers=n) for n in (1, 2))
    np.testing.assert_array_equal(one, two)


def test_plans_come_back_with_their_images_and_batches_may_differ_in_size(split: Index) -> None:
    plans = list(validation_plans(len(split), 8))
    feed = Feed(split, view(train=False), 8, torch.device("cpu"), 2)
    pairs = list(pipeline.images(iter(plans), feed))
    assert [plan for plan, _ in pairs] == plans
    assert [tuple(image.shape) for _, image in pairs] == [(len(p.rows), SIZE, SIZE, 3) for p in plans]
    assert pairs[0][1].dtype == torch.uint8


def test_images_stay_intact_while_later_ones_are_decoded(split: Index) -> None:
    feed = Feed(split, view(train=True), 8, torch.device("cpu"), 2)
    stream = pipeline.images(iter(training(split, 9)), feed)
    first = next(stream)[1]
    copy = first.clone()
    list(stream)
    torch.testing.assert_close(first, copy, rtol=0, atol=0)


def test_closing_ends_the_threads(split: Index) -> None:
    process = psutil.Process()
    feed = Feed(split, view(train=True), 8, torch.device("cpu"), 5)
    next(pipeline.images(iter(training(split, 3)), feed))
    before = process.num_threads()
    stream = pipeline.images(iter(training(split, 3)), feed)
    next(stream)
    assert process.num_threads() >= before + 5
    stream.close()
    assert process.num_threads() <= before


def cut_to_half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def cut_last_bytes(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-2])


def make_text(path: Path) -> None:
    path.write_text("<html>404 not found</html>")


def make_gif(path: Path) -> None:
    Image.new("RGB", (40, 40)).save(path, format="GIF")


def make_empty(path: Path) -> None:
    path.write_bytes(b"")


def make_one_byte(path: Path) -> None:
    path.write_bytes(b"\xff")


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize(
    "spoil", [cut_to_half, cut_last_bytes, make_text, make_gif, make_empty, make_one_byte, Path.unlink]
)
def test_a_bad_image_is_named(small: Path, spoil, train: bool) -> None:
    index = scan_folder(small)
    bad = Path(index.path(5))
    spoil(bad)
    plans = training(index, 3) if train else list(validation_plans(len(index), 3))
    for images in (pipeline.images, reference.images):
        with pytest.raises(UserError) as caught:
            pixels_of(images, index, plans, view(train=train))
        first, second = str(caught.value).splitlines()
        assert first.startswith(f"{bad} cannot be decoded: ")
        assert second.startswith("Replace the file")


def test_a_truncated_image_is_named_even_where_the_crop_misses_the_damage(small: Path, save) -> None:
    index = scan_folder(small)
    bad = save(Path(index.path(5)), 400, 300, seed=5)
    bad.write_bytes(bad.read_bytes()[: bad.stat().st_size * 9 // 10])
    top_left_third = Plan(0, 0, np.arange(8), np.tile([0.0, 0.5, 0.0, 0.0, 0.9], (8, 1)))
    with pytest.raises(UserError, match=rf"{bad} cannot be decoded"):
        pixels_of(pipeline.images, index, [top_left_third], view(train=True))


def test_garbage_after_the_end_of_an_image_is_accepted(small: Path) -> None:
    index = scan_folder(small)
    plans = list(validation_plans(len(index), 8))
    before = pixels_of(pipeline.images, index, plans, view(train=False))
    path = Path(index.path(5))
    path.write_bytes(path.read_bytes() + b"trailing")
    np.testing.assert_array_equal(pixels_of(pipeline.images, index, plans, view(train=False)), before)


def test_a_failure_that_no_file_explains_is_passed_on(split: Index) -> None:
    feed = Feed(split, view(train=True), 4, torch.device("cpu"), 2)
    with pytest.raises((RuntimeError, ValueError)):
        list(pipeline.images(iter(training(split, 1)), feed))


@pytest.mark.gpu
@pytest.mark.parametrize("train", [False, True])
def test_pixels_decoded_on_a_gpu_are_close_to_the_reference(split: Index, train: bool) -> None:
    how = view(train=train)
    plans = training(split, 5) if train else list(validation_plans(len(split), 8))
    feed = Feed(split, how, 8, torch.device("cuda", 0), 2)
    ours = np.concatenate([image.cpu().numpy().astype(int) for _, image in pipeline.images(iter(plans), feed)])
    difference = np.abs(ours - pixels_of(reference.images, split, plans, how)).mean(axis=(1, 2, 3))
    assert np.median(difference) <= 1.5
