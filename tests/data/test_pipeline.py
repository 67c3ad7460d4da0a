"""Tests of the loader with DALI: against the reference, its repeatability, and bad files."""

import io
import math
import struct
import subprocess
import sys
import time
import zlib
from contextlib import closing
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from backbones.data import reference
from backbones.data.augment.draws import AREA, DRAWS, FLIP
from backbones.data.augment.view import View
from backbones.data.feed import Feed, OpenImages
from backbones.data.order import Plan, Shares, training_plans, validation_plans
from backbones.data.reading import reader as reader_module
from backbones.data.reading.bad_images import BadImages
from backbones.data.reading.reader import Reader
from backbones.dataset.encoded import ImageHeader, decode, read_header
from backbones.dataset.index import Index
from backbones.dataset.place import BadImageError
from backbones.dataset.sources.folder import scan_folder
from backbones.errors import UserError
from backbones.recipe import Augment, InceptionAugment, Interpolation, Loading, Preprocess
from tests.dataset.make_pictures import picture

pytest.importorskip("nvidia.dali")
from backbones.data import pipeline  # needs DALI

SIZE = 48
CROP, WARP = Augment("inception"), Augment("darknet")
EVERY_VIEW = [
    *(View(SIZE, Preprocess("timm", interpolation=kind), CROP) for kind in ("bilinear", "bicubic")),
    *(View(SIZE, Preprocess("timm", pct, kind)) for pct in (1.0, 0.887) for kind in ("bilinear", "bicubic")),
    View(SIZE, Preprocess("full")),
    View(SIZE, Preprocess(crop_pct=0.9)),
    View(SIZE, Preprocess(), WARP),
]
AUTO = [Augment("inception", inception=InceptionAugment(auto=auto)) for auto in ("randaugment", "trivialaugment")]
TRAINING = [View(SIZE, Preprocess(), augment) for augment in (CROP, WARP)]


def view(*, train: bool) -> View:
    return View(SIZE, Preprocess("timm", 0.9), CROP if train else None)


def feed_of(index: Index, how: View, *, batch_size: int = 8, workers: int = 2, loading: Loading | None = None) -> Feed:
    loading = loading or Loading()
    bad = BadImages(index, loading if how.augment else None)
    return Feed(index, how, batch_size, torch.device("cpu"), workers, loading, bad)


def pairs_of(images: OpenImages, plans, feed: Feed) -> list[tuple[Plan, torch.Tensor]]:
    with images(iter(plans), feed) as pairs:
        return list(pairs)


def pixels_of(images: OpenImages, index: Index, plans, how: View, **options) -> np.ndarray:
    pairs = pairs_of(images, plans, feed_of(index, how, **options))
    return np.concatenate([image.numpy().astype(int) for _, image in pairs])


def training(index: Index, count: int, *, step: int = 0) -> list[Plan]:
    return list(islice(training_plans(len(index), Shares(8), seed=3, step=step), count))


def plans_of(index: Index, how: View, count: int) -> list[Plan]:
    return training(index, count) if how.augment else list(validation_plans(len(index), 8))


def name_of(how: View) -> str:
    kind = how.augment.augmentation if how.augment else f"{how.preprocess.protocol}{how.preprocess.crop_pct}"
    return f"{kind}-{how.preprocess.interpolation}"


@pytest.mark.parametrize("how", EVERY_VIEW, ids=name_of)
def test_pixels_equal_the_reference(split: Index, how: View) -> None:
    plans = plans_of(split, how, 5)
    difference = np.abs(
        pixels_of(pipeline.images, split, plans, how) - pixels_of(reference.images, split, plans, how)
    ).mean(axis=(1, 2, 3))
    assert len(difference) == sum(len(plan.rows) for plan in plans)
    assert difference.max() <= (0.01 if how.is_warp else 1.0 if how.augment else 0.5)


@pytest.mark.parametrize("augment", AUTO, ids=["randaugment", "trivialaugment"])
def test_operations_of_auto_augmentation_equal_the_reference(split: Index, augment: Augment) -> None:
    how = View(224, Preprocess(), augment)  # as large as in use: small images are enlarged edges
    plans = training(split, 5)
    plain = replace(how, augment=CROP)
    ours, theirs, without = (
        pixels_of(images, split, plans, view)
        for images, view in ((pipeline.images, how), (reference.images, how), (reference.images, plain))
    )
    difference, effect = (np.abs(ours - x).mean(axis=(1, 2, 3)) for x in (theirs, without))
    assert np.median(difference) <= 1.0
    assert np.quantile(difference, 0.9) <= 2.5
    assert np.median(effect) > 5


@pytest.mark.parametrize("how", [*TRAINING, View(SIZE, Preprocess(), AUTO[0])], ids=name_of)
def test_decoding_alone_decodes_the_windows_that_are_augmented(split: Index, how: View) -> None:
    plans = training(split, 3)
    for plan, shapes in pairs_of(pipeline.decode_plans, plans, feed_of(split, how)):
        sizes = np.array([decode(Path(split.place(row).path).read_bytes()).size[::-1] for row in plan.rows.tolist()])
        windows = (how.warps if how.is_warp else how.crops)(sizes, plan.draws).windows
        assert np.array_equal(shapes.numpy(), np.column_stack([windows[:, 2:], np.full(8, 3)]))


@pytest.mark.parametrize("how", TRAINING, ids=name_of)
@pytest.mark.parametrize("column", range(7))
def test_every_draw_of_the_geometry_matters(split: Index, how: View, column: int) -> None:
    plans = training(split, 5)
    draws = [np.where(np.arange(DRAWS) == column, (plan.draws + 0.5) % 1, plan.draws) for plan in plans]
    others = [plan._replace(draws=each) for plan, each in zip(plans, draws, strict=True)]
    one, other = (pixels_of(pipeline.images, split, each, how) for each in (plans, others))
    changed = (np.abs(one - other).mean(axis=(1, 2, 3)) > 1).mean()
    is_used = how.augment == WARP or column <= FLIP
    assert changed > 0.3 if is_used else changed == 0


MODES = [
    ("grey.jpg", {"mode": "L"}),
    ("cmyk.jpg", {"mode": "CMYK"}),
    ("png_inside.jpg", {"kind": "PNG"}),
    ("rgba.png", {"mode": "RGBA", "kind": "PNG"}),
    ("bmp.bmp", {"kind": "BMP"}),
    ("webp.webp", {"kind": "WEBP"}),
    ("tiff.tif", {"kind": "TIFF"}),
]


@pytest.mark.parametrize("how", [view(train=False), *TRAINING], ids=name_of)
def test_other_modes_and_formats_equal_the_reference(tmp_path: Path, save, how: View) -> None:
    for seed, (name, form) in enumerate(MODES):
        save(tmp_path / "a" / name, 83, 61, seed=seed, **form)
    index = scan_folder(tmp_path)
    plans = [Plan(0, 0, np.arange(len(MODES)), np.random.default_rng(1).random((len(MODES), DRAWS)))]
    ours, theirs = (pixels_of(images, index, plans, how) for images in (pipeline.images, reference.images))
    difference = np.abs(ours - theirs).mean(axis=(1, 2, 3))
    assert dict(zip(index.files, difference <= 0.8, strict=True)) == dict.fromkeys(index.files, True)


THIN = [(900, 7), (5, 700), (1200, 1), (83, 61)]


@pytest.mark.parametrize("resizes_with_torch", [True, False])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_thin_images_equal_torchvision_s_whole_resize_and_crop(
    tmp_path: Path, save, monkeypatch, interpolation: Interpolation, resizes_with_torch: bool
) -> None:
    if not resizes_with_torch:  # as on a GPU
        monkeypatch.setattr(pipeline, "resizes_with_torch", lambda _: False)
    for seed, size in enumerate(THIN):
        save(tmp_path / "a" / f"{seed}.png", *size, seed=seed, kind="PNG")
    index = scan_folder(tmp_path)
    how = View(SIZE, Preprocess("timm", crop_pct=0.875, interpolation=interpolation))
    plans = list(validation_plans(len(THIN), 8))
    ours, theirs = (pixels_of(images, index, plans, how) for images in (pipeline.images, reference.images))
    for row in range(len(THIN)):
        image = decode(Path(index.place(row).path).read_bytes())
        whole = v2.functional.resize(image, [math.floor(SIZE / 0.875)], v2.InterpolationMode(interpolation))
        expected = np.asarray(v2.functional.center_crop(whole, [SIZE, SIZE])).astype(int)
        assert np.abs(theirs[row] - expected).max() <= 1
        assert np.abs(ours[row] - expected).mean() <= 0.5


MEMORY = """
import resource, sys
from pathlib import Path
from backbones.data.loader import EvalLoader
from backbones.dataset.sources.folder import scan_folder
from backbones.recipe import Preprocess

def peak(folder):
    how = {"img_size": 224, "preprocess": Preprocess("timm"), "batch_size": 1, "workers": 1}
    for loader in ("dali", "reference"):
        next(iter(EvalLoader(scan_folder(Path(sys.argv[1]) / folder), loader=loader, **how)))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

before = peak("usual")
print(peak("thin") - before)
"""


def test_the_memory_for_a_thin_image_is_bounded_by_the_crop(tmp_path: Path) -> None:
    """Resized as a whole, it would have 224 x 13,440,000 pixels of 3 bytes: 9 GB."""
    for name, size in {"usual": (300, 200), "thin": (60_000, 1)}.items():
        (tmp_path / name / "a").mkdir(parents=True)
        Image.new("RGB", size, "red").save(tmp_path / name / "a" / "1.jpg")
    command = [sys.executable, "-c", MEMORY, str(tmp_path)]
    grown = subprocess.run(command, capture_output=True, text=True, check=True).stdout  # in MB
    assert int(grown.splitlines()[-1]) < 50


def test_exif_orientation_is_ignored(tmp_path: Path, save) -> None:
    path = save(tmp_path / "a" / "1.jpg", 90, 60, seed=1)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(path).save(tmp_path / "a" / "2.jpg", quality=92, exif=exif)
    Image.open(path).save(tmp_path / "a" / "3.jpg", quality=92)
    for train in (False, True):
        plan = Plan(0, 0, np.array([1, 2]), np.full((2, DRAWS), 0.4))
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
    feed = feed_of(split, view(train=False))
    pairs = pairs_of(pipeline.images, plans, feed)
    assert [(plan.position, plan.rows.tolist()) for plan, _ in pairs] == [(p.position, p.rows.tolist()) for p in plans]
    assert [tuple(image.shape) for _, image in pairs] == [(len(p.rows), SIZE, SIZE, 3) for p in plans]
    assert pairs[0][1].dtype == torch.uint8


def test_images_stay_intact_while_later_ones_are_decoded(split: Index) -> None:
    feed = feed_of(split, view(train=True))
    with pipeline.images(iter(training(split, 9)), feed) as stream:
        first = next(stream)[1]
        copy = first.clone()
        list(stream)
    torch.testing.assert_close(first, copy, rtol=0, atol=0)


def test_closing_ends_the_threads(split: Index) -> None:
    process = psutil.Process()
    feed = feed_of(split, view(train=True), workers=5)
    before = process.num_threads()
    with pipeline.images(iter(training(split, 3)), feed) as stream:
        next(stream)
        assert process.num_threads() >= before + 5
    for _ in range(100):  # a thread that has ended is counted for a moment longer
        if process.num_threads() <= before:
            return
        time.sleep(0.02)
    raise AssertionError(f"{process.num_threads()} threads where there were {before}")


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


SPOILERS = [cut_to_half, cut_last_bytes, make_text, make_gif, make_empty, make_one_byte, Path.unlink]


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("spoil", SPOILERS)
def test_a_bad_image_is_named(small: Path, spoil, train: bool) -> None:
    index = scan_folder(small)
    bad = Path(index.place(5).path)
    spoil(bad)
    plans = training(index, 3) if train else list(validation_plans(len(index), 3))
    for images in (pipeline.images, reference.images):
        with pytest.raises(UserError) as caught:
            pixels_of(images, index, plans, view(train=train))
        first, second = str(caught.value).splitlines()
        assert first.startswith(f"{bad} cannot be decoded: ")
        assert "replace the file" in second.lower()


SKIP = Loading(bad_images="skip", bad_images_limit=1.0)


@pytest.mark.parametrize("spoil", SPOILERS)
def test_a_skipped_image_gives_way_to_another_and_nothing_else_changes(small: Path, spoil) -> None:
    index = scan_folder(small)
    plans = training(index, 6)
    expected = [plan._replace(rows=np.where(plan.rows == 5, 6, plan.rows)) for plan in plans]
    wanted = pixels_of(pipeline.images, index, expected, view(train=True))
    spoil(Path(index.place(5).path))
    for images in (pipeline.images, reference.images):
        feed = feed_of(index, view(train=True), loading=SKIP)
        pairs = pairs_of(images, plans, feed)
        assert [plan.rows.tolist() for plan, _ in pairs] == [plan.rows.tolist() for plan in expected]
        assert [plan.replaced for plan, _ in pairs] == [int((plan.rows == 5).sum()) for plan in plans]
        found = np.concatenate([image.numpy().astype(int) for _, image in pairs])
        assert np.abs(found - wanted).mean() <= (0 if images is pipeline.images else 0.5)


def corrupt_header(path: Path) -> None:
    """Break the Huffman tables: size and end mark remain, but no decoder accepts the file."""
    data = bytearray(path.read_bytes())
    table = data.index(b"\xff\xc4")
    data[table + 5 : table + 21] = b"\xff" * 16
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("how", TRAINING, ids=name_of)
def test_a_file_that_ends_dali_s_pipeline_does_not_end_the_run(small: Path, how: View) -> None:
    index = scan_folder(small)
    plans = training(index, 6)
    expected = [plan._replace(rows=np.where(plan.rows == 5, 6, plan.rows)) for plan in plans]
    wanted = pixels_of(pipeline.images, index, expected, how)
    corrupt_header(Path(index.place(5).path))
    feed = feed_of(index, how, loading=SKIP)
    found = pairs_of(pipeline.images, plans, feed)
    assert [plan.rows.tolist() for plan, _ in found] == [plan.rows.tolist() for plan in expected]
    np.testing.assert_array_equal(np.concatenate([image.numpy() for _, image in found]), wanted)
    assert sum(plan.replaced for plan, _ in found) == 6


@pytest.mark.parametrize("train", [True, False])
def test_a_file_that_ends_dali_s_pipeline_is_named(small: Path, train: bool) -> None:
    index = scan_folder(small)
    bad = Path(index.place(5).path)
    corrupt_header(bad)
    plans = training(index, 3) if train else list(validation_plans(len(index), 3))
    with pytest.raises(UserError, match=f"{bad} cannot be decoded"):
        pixels_of(pipeline.images, index, plans, view(train=train))


def test_an_image_that_only_pil_decodes_is_decoded_by_pil(small: Path, monkeypatch) -> None:
    index = scan_folder(small)
    plans = training(index, 6)
    wanted = pixels_of(pipeline.images, index, plans, view(train=True))
    path = Path(index.place(5).path)
    pixels = np.asarray(Image.open(path))
    Image.fromarray(pixels).save(path, format="GIF")  # stands for any format that DALI lacks
    monkeypatch.setattr("backbones.dataset.encoded.FORMATS", ("JPEG", "GIF", "BMP"))
    index = scan_folder(small)
    feed = feed_of(index, view(train=True))
    pairs = pairs_of(pipeline.images, plans, feed)
    found = np.concatenate([image.numpy().astype(int) for _, image in pairs])
    assert np.abs(found - wanted).mean() < 8  # a GIF has 256 colours
    assert not any(plan.replaced for plan, _ in pairs)


def test_no_batch_is_lost_where_one_failure_follows_another(small: Path, monkeypatch) -> None:
    """One file that nothing decodes and one that only PIL decodes: they are found one after the other."""
    path = Path(scan_folder(small).place(2).path)
    Image.open(path).save(path, format="GIF")
    monkeypatch.setattr("backbones.dataset.encoded.FORMATS", ("JPEG", "GIF", "BMP"))
    corrupt_header(Path(scan_folder(small).place(5).path))
    index = scan_folder(small)
    rows = [[0, 1], [3, 5], [4, 6], [7, 0], [2, 1], [3, 4], [6, 2], [7, 7]]
    plans = [Plan(0, 2 * i, np.array(pair), np.full((2, DRAWS), 0.4)) for i, pair in enumerate(rows)]
    feed = feed_of(index, view(train=True), batch_size=2, loading=replace(SKIP, prefetch=3))
    found = [plan.rows.tolist() for plan, _ in pairs_of(pipeline.images, plans, feed)]
    assert found == [[3, 6] if pair == [3, 5] else pair for pair in rows]


def test_a_pipeline_that_fails_early_hands_on_what_another_left(split: Index) -> None:
    feed = feed_of(split, view(train=True))
    plans = training(split, 5)
    with closing(Reader(feed.bad, threads=1)) as reader:
        in_flight = pipeline.InFlight(map(reader.read, plans), feed, reader)
        for pulled in (3, 1):
            list(islice(in_flight, pulled))
            in_flight.restart()
        assert [rows.tolist() for _, rows, *_ in in_flight] == [plan.rows.tolist() for plan in plans]


def test_a_batch_that_cannot_be_read_again_ends_the_batches_after_those_before_it(small: Path) -> None:
    feed = feed_of(scan_folder(small), view(train=True), loading=SKIP)
    rows = [[0, 1], [2, 3], [4, 5], [1, 2], [3, 0]]
    plans = [Plan(0, 2 * i, np.array(pair), np.zeros((2, DRAWS))) for i, pair in enumerate(rows)]
    with closing(Reader(feed.bad, threads=1)) as reader:
        in_flight = pipeline.InFlight(map(reader.read, plans), feed, reader)
        list(islice(in_flight, 4))
        feed.bad.rows.update(range(4, 8))  # the whole class of the third batch
        in_flight.restart()
        assert [found.tolist() for _, found, *_ in in_flight] == rows[:2]
    assert "No image of class" in str(in_flight.error)


def stray_marker(path: Path) -> None:
    """Put a marker into the pixels: PIL fails there, DALI warns and goes on."""
    data = bytearray(path.read_bytes())
    middle = len(data) * 2 // 3
    data[middle : middle + 2] = b"\xff\xc7"
    path.write_bytes(bytes(data))


def test_whether_an_image_is_bad_does_not_depend_on_its_batch(small: Path) -> None:
    """An image that DALI decodes is used, also when another one of its batch ends the pipeline."""
    stray_marker(Path(scan_folder(small).place(2).path))
    index = scan_folder(small)
    with pytest.raises(BadImageError):
        decode(Path(index.place(2).path).read_bytes())
    corrupt_header(Path(index.place(5).path))
    plans = training(index, 6)
    pairs = pairs_of(pipeline.images, plans, feed_of(index, view(train=True), loading=SKIP))
    found = [plan.rows for plan, _ in pairs]
    expected = [np.where(plan.rows == 5, 6, plan.rows) for plan in plans]
    assert [rows.tolist() for rows in found] == [rows.tolist() for rows in expected]


@pytest.mark.parametrize("how", TRAINING, ids=name_of)
@pytest.mark.parametrize("prefetch", [1, 4])
def test_batches_before_a_bad_image_are_delivered(small: Path, how: View, prefetch: int) -> None:
    index = scan_folder(small)
    Path(index.place(5).path).write_bytes(b"")
    rows = [[0, 1], [2, 3], [4, 6], [7, 5], [1, 2]]
    plans = [Plan(0, 2 * i, np.array(pair), np.full((2, DRAWS), 0.4)) for i, pair in enumerate(rows)]
    feed = feed_of(index, how, batch_size=2, loading=Loading(prefetch=prefetch))
    with pipeline.images(iter(plans), feed) as stream:
        assert [next(stream)[0].rows.tolist() for _ in range(3)] == rows[:3]
        with pytest.raises(UserError, match="cannot be decoded"):
            next(stream)


def test_a_truncated_image_is_named_even_where_the_crop_misses_the_damage(small: Path, save) -> None:
    bad = save(Path(scan_folder(small).place(5).path), 400, 300, seed=5)
    bad.write_bytes(bad.read_bytes()[: bad.stat().st_size * 9 // 10])
    draws = np.zeros((8, DRAWS))  # the top left third
    draws[:, AREA + 1] = 0.5
    with pytest.raises(UserError, match=rf"{bad} cannot be decoded"):
        pixels_of(pipeline.images, scan_folder(small), [Plan(0, 0, np.arange(8), draws)], view(train=True))


def test_garbage_after_the_end_of_an_image_is_accepted(small: Path) -> None:
    index = scan_folder(small)
    plans = list(validation_plans(len(index), 8))
    before = pixels_of(pipeline.images, index, plans, view(train=False))
    path = Path(index.place(5).path)
    path.write_bytes(path.read_bytes() + b"trailing")
    np.testing.assert_array_equal(pixels_of(pipeline.images, scan_folder(small), plans, view(train=False)), before)


def test_a_failure_that_no_image_explains_alone_names_the_batch(split: Index) -> None:
    feed = feed_of(split, view(train=True), batch_size=4)
    (plan,) = training(split, 1)
    with pytest.raises(UserError, match=r"DALI failed, though it decodes each .*\nDALI says: ") as caught:
        pairs_of(pipeline.images, [plan], feed)
    assert split.describe(int(plan.rows[0])) in str(caught.value)


@pytest.fixture
def blind_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the reader take every header for a usual one, as if DALI had a fault that nobody knows yet."""

    def read(data: bytes) -> ImageHeader:
        return read_header(data)._replace(is_unusual=False)

    monkeypatch.setattr(reader_module, "read_header", read)


@pytest.mark.usefixtures("blind_reader")
@pytest.mark.parametrize("how", [view(train=False), *TRAINING], ids=name_of)
@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_an_image_that_dali_reads_to_another_size_is_traced_and_left_to_pil(
    small: Path, how: View, orientation: int
) -> None:
    path = Path(scan_folder(small).place(5).path)
    Image.fromarray(picture(200, 60, seed=1)).save(path, format="TIFF", tiffinfo={0x0112: orientation})
    index = scan_folder(small)
    plans = [Plan(0, 0, np.arange(8), np.full((8, DRAWS), 0.99))]  # the bottom right corner, which DALI lacks
    ours, theirs = (pixels_of(images, index, plans, how) for images in (pipeline.images, reference.images))
    assert np.abs(ours - theirs).mean(axis=(1, 2, 3)).max() <= 1


def png_of_two_sizes(path: Path) -> None:
    """Write a PNG of 60 x 45 pixels whose first chunk, which is no header, holds 5 x 5."""
    data = io.BytesIO()
    Image.new("RGB", (60, 45), "red").save(data, "PNG")
    kind, content = b"prVt", struct.pack(">II", 5, 5)
    chunk = struct.pack(">I", 8) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
    path.write_bytes(data.getvalue()[:8] + chunk + data.getvalue()[8:])


@pytest.mark.parametrize("images", [pipeline.images, reference.images])
def test_an_image_whose_header_lies_about_its_size_is_named_or_skipped(small: Path, images: OpenImages) -> None:
    png_of_two_sizes(Path(scan_folder(small).place(5).path))
    index = scan_folder(small)
    for how in (view(train=False), view(train=True)):
        plans = [Plan(0, 0, np.arange(8), np.full((8, DRAWS), 0.4))]
        with pytest.raises(UserError, match=rf"{index.place(5).path} cannot be decoded: its header says 5 x 5"):
            pixels_of(images, index, plans, how)
    skip = Loading(bad_images="skip", bad_images_limit=1.0)
    ((plan, _),) = pairs_of(images, plans, feed_of(index, how, loading=skip))
    assert plan.replaced == 1
    assert 5 not in plan.rows


def test_what_dali_refuses_even_as_a_bitmap_is_bad(small: Path) -> None:
    index = scan_folder(small)
    with closing(Reader(BadImages(index, Loading()), threads=1, for_dali=True)) as reader:
        reader.refuse(3)
        with pytest.raises(UserError, match=r"cannot be decoded: DALI refuses even what PIL decodes"):
            reader.refuse(3)


@pytest.mark.gpu
@pytest.mark.parametrize("how", EVERY_VIEW, ids=name_of)
def test_pixels_decoded_on_a_gpu_are_close_to_the_reference(split: Index, how: View) -> None:
    plans = plans_of(split, how, 5)
    feed = replace(feed_of(split, how), device=torch.device("cuda", 0))
    pairs = pairs_of(pipeline.images, plans, feed)
    ours = np.concatenate([image.cpu().numpy().astype(int) for _, image in pairs])
    difference = np.abs(ours - pixels_of(reference.images, split, plans, how)).mean(axis=(1, 2, 3))
    assert np.median(difference) <= 1.5
