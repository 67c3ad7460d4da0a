"""Tests of the comparison with PIL: what counts as damage, which images are compared, and a faulty decoder."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from backbones.data import decode_check, reference
from backbones.data.augment.draws import DRAWS
from backbones.data.augment.view import View
from backbones.data.decode_check import DecodeCheck, relative_difference
from backbones.data.feed import Feed
from backbones.data.order import Plan, Shares, training_plans
from backbones.data.reading.bad_images import BadImages
from backbones.data.reading.reader import EncodedBatch, Reader
from backbones.dataset.index import Index
from backbones.dataset.sources.folder import scan_folder
from backbones.errors import UserError
from backbones.recipe import Augment, InceptionAugment, Loading, Preprocess

SIZE = 64
VIEW = View(SIZE, Preprocess(), Augment("inception"))
Damage = Callable[[torch.Tensor], torch.Tensor]


def photograph(seed: int = 0, size: int = 224) -> torch.Tensor:
    """Return smooth colours with a few edges and some noise, as photographs have."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:size, 0:size] / size
    waves = [np.sin(2 * np.pi * (a * x + b * y) + c) for a, b, c in random.uniform(-1.5, 1.5, (3, 3))]
    picture = 128 + 80 * np.stack(waves, axis=-1) + random.normal(0, 4, (size, size, 3))
    left, top = random.integers(0, size // 2, 2)
    picture[top : top + 40, left : left + 60] = random.uniform(0, 255, 3)
    return torch.from_numpy(picture.clip(0, 255).astype(np.uint8))


def coarse_colours(pixels: torch.Tensor) -> torch.Tensor:
    """Return the picture with its colour planes halved and enlarged by repetition, as nvJPEG enlarges them."""
    light, *colours = Image.fromarray(pixels.numpy()).convert("YCbCr").split()
    height, width, _ = pixels.shape
    coarse = [plane.reduce(2).resize((width, height), Image.Resampling.NEAREST) for plane in colours]
    return torch.from_numpy(np.asarray(Image.merge("YCbCr", (light, *coarse)).convert("RGB")).copy())


DAMAGE: dict[str, Damage] = {
    "black": torch.zeros_like,
    "lower half missing": lambda pixels: torch.cat([pixels[:112], torch.full_like(pixels[112:], 128)]),
    "another image": lambda pixels: photograph(1, pixels.shape[0]),
    "red and blue exchanged": lambda pixels: pixels.flip(2),
    "a row of blocks overwritten": lambda pixels: torch.cat([pixels[:64], pixels[:32] // 2, pixels[96:]]),
    "shifted by a block": lambda pixels: pixels.roll(16, 0),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=list(DAMAGE))
@pytest.mark.parametrize("seed", range(2, 6))
def test_damage_exceeds_what_rounding_explains(damage: Damage, seed: int) -> None:
    expected = photograph(seed)
    assert relative_difference(damage(expected), expected) > 1


@pytest.mark.parametrize("seed", range(6))
def test_other_rounding_and_other_colour_planes_are_no_damage(seed: int) -> None:
    expected = photograph(seed)
    rounded = (expected.int() + torch.randint(-2, 3, expected.shape)).clamp(0, 255).to(torch.uint8)
    assert relative_difference(expected, expected) == 0
    assert relative_difference(rounded, expected) < 0.3
    assert 0.02 < relative_difference(coarse_colours(expected), expected) < 0.6


def test_the_unit_is_eight_levels_where_there_is_no_contrast() -> None:
    grey = torch.full((16, 16, 3), 100, dtype=torch.uint8)
    assert relative_difference(grey + 8, grey) == 1
    assert relative_difference(grey - 12, grey) == 1.5


def feed_of(index: Index, *, interval: int, view: View = VIEW, bad_images: str = "stop") -> Feed:
    loading = Loading(decode_check=interval, bad_images=bad_images)  # type: ignore[arg-type]
    return Feed(index, view, 8, torch.device("cpu"), 1, loading, BadImages(index, loading))


def batches(index: Index, count: int) -> Iterator[EncodedBatch]:
    reader = Reader(BadImages(index, Loading()), threads=1)
    yield from map(reader.read, islice(training_plans(len(index), Shares(8), seed=0), count))
    reader.close()


def true_pixels(feed: Feed, batch: EncodedBatch) -> torch.Tensor:
    with reference.images(iter([batch.asked]), feed) as pairs:
        ((_, pixels),) = pairs
    return pixels


@pytest.mark.parametrize(("interval", "checked"), [(0, 0), (1, 40), (3, 14), (8, 5), (16, 3), (10_000, 1)])
def test_one_image_in_n_is_compared_from_the_first_batch_on(
    split: Index, interval: int, checked: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[tuple[int, int]] = []
    monkeypatch.setattr(DecodeCheck, "_compare", lambda _, each: compared.append((id(each.batch), each.number)) or 0.0)
    check = DecodeCheck(feed_of(split, interval=interval))
    kept = list(batches(split, 5))
    for batch in kept:
        check.take(batch, torch.zeros(8, SIZE, SIZE, 3, dtype=torch.uint8))
    check.finish()
    assert len(set(compared)) == len(compared) == checked
    assert not checked or id(kept[0]) in {number for number, _ in compared}


def test_right_pixels_pass_and_damaged_images_are_named(split: Index) -> None:
    feed = feed_of(split, interval=1)
    check = DecodeCheck(feed)
    first, second = batches(split, 2)
    pixels = true_pixels(feed, second)
    pixels[[2, 5]] = 0
    check.take(first, true_pixels(feed, first))
    check.take(second, pixels)
    with pytest.raises(UserError) as error:
        check.finish()
    named = [split.describe(int(second.plan.rows[number])) for number in (2, 5)]
    assert str(error.value).splitlines()[:3] == [
        "2 of 8 images that were decoded again on the CPU differ by more than rounding:",
        *(f"  {name}" for name in named),
    ]
    check.finish()  # it is said once


def test_a_file_that_pil_refuses_is_a_bad_image(split: Index, capsys: pytest.CaptureFixture[str]) -> None:
    (batch,) = batches(split, 1)
    broken = batch.data[3][: len(batch.data[3]) // 2]
    batch = batch._replace(data=[*batch.data[:3], broken, *batch.data[4:]])
    for bad_images in ("stop", "skip"):
        feed = feed_of(split, interval=1, bad_images=bad_images)
        check = DecodeCheck(feed)
        check.take(batch, true_pixels(feed, batch))
        if bad_images == "stop":
            with pytest.raises(UserError, match="cannot be decoded"):
                check.finish()
        else:
            check.finish()
            assert feed.bad.rows == {int(batch.plan.rows[3])}
            assert split.describe(int(batch.plan.rows[3])) in capsys.readouterr().err


AUTO = Augment("inception", inception=InceptionAugment(auto="randaugment", magnitude=20))
VIEWS = {
    "crop": VIEW,
    "warp": View(SIZE, Preprocess(), Augment("darknet")),
    "operations": View(SIZE, Preprocess(), AUTO),
    "evaluation": View(SIZE, Preprocess("timm", 0.9)),
}


@pytest.fixture
def photographs(tmp_path: Path) -> Index:
    for number in range(16):
        path = tmp_path / "class" / f"{number:02d}.jpg"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(photograph(number, 96 + 8 * number).numpy()).save(path, quality=85)
    return scan_folder(tmp_path)


class SkippingDecoder:
    """A decoder of DALI that leaves the first image of each batch black, and reports no error."""

    def __init__(self, pipeline: Any) -> None:
        self.decode, self.source = pipeline._decode, pipeline.fn.external_source

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return self.decode(*arguments, **options) * self.source(source=self._flags, batch=False)

    @staticmethod
    def _flags(sample: Any) -> np.ndarray:
        return np.array(sample.idx_in_batch > 0, dtype=np.uint8)


@pytest.mark.parametrize("view", VIEWS.values(), ids=list(VIEWS))
@pytest.mark.parametrize("faulty", [False, True], ids=["sound", "faulty"])
def test_a_decoder_that_skips_an_image_ends_the_loader_with_its_name(
    photographs: Index, view: View, faulty: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = pytest.importorskip("backbones.data.pipeline", exc_type=ImportError)
    if faulty:
        monkeypatch.setattr(pipeline, "_decode", SkippingDecoder(pipeline))
    plan = Plan(0, 0, np.arange(8), np.random.default_rng(0).random((8, DRAWS)))
    expectation = pytest.raises(UserError, match=r"1 of 8 images .*differ") if faulty else nullcontext()
    with expectation as error, pipeline.images(iter([plan]), feed_of(photographs, interval=1, view=view)) as pairs:
        assert len(list(pairs)) == 1
    assert error is None or photographs.describe(0) in str(error.value)


def test_operations_are_taken_out_of_the_view_that_is_compared() -> None:
    plain = decode_check.without_operations(VIEWS["operations"])
    assert not plain.is_auto
    assert plain == replace(VIEWS["operations"], augment=replace(AUTO, inception=replace(AUTO.inception, auto="none")))
    assert decode_check.without_operations(VIEWS["warp"]) is VIEWS["warp"]


def test_a_negative_interval_is_refused() -> None:
    with pytest.raises(UserError, match="decode_check=-1 must not be negative"):
        Loading(decode_check=-1)
