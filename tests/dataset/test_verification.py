"""Looking at every image: broken files made by hand, odd ones that are fine, equal ones, and workers that die."""

import hashlib
import io
import multiprocessing
import os
import re
import struct
import zlib
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from backbones.dataset import verification
from backbones.dataset.index import Index, Place, Strings
from backbones.dataset.sources.folder import scan_folder
from backbones.dataset.verification import (
    IMAGENET,
    Look,
    Remark,
    Seen,
    Survey,
    duplicates,
    look_at,
    miscounts,
    sort_duplicates,
    survey,
)
from backbones.dataset.workers import JOBS_PER_WORKER, processes
from backbones.errors import UserError

PIXELS = np.random.default_rng(5).integers(0, 256, (45, 60, 3), dtype=np.uint8)
SOUND = Image.fromarray(PIXELS)


def encoded(image: Image.Image = SOUND, kind: str = "JPEG", **options) -> bytes:
    data = io.BytesIO()
    image.save(data, format=kind, **options)
    return data.getvalue()


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, pixels: bytes = b"", *, depth: int = 8, first: bytes = b"") -> bytes:
    """A PNG with three channels, written chunk by chunk."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, 2, 0, 0, 0))
    body = png_chunk(b"IDAT", zlib.compress(pixels)) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + first + header + body


def png_lines(height: int, bytes_each: int) -> bytes:
    return b"".join(b"\0" + bytes(bytes_each) for _ in range(height))


def bmp_header(width: int, height: int) -> bytes:
    return b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)


def jpeg_of(width: int, height: int) -> bytes:
    """A JPEG whose frame header claims another size."""
    data = bytearray(encoded())
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def changed(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]


def look(folder: Path, data: bytes, name: str = "image.jpg") -> Look:
    (folder / name).write_bytes(data)
    return look_at(Place(str(folder / name), 0, len(data)), name)


PNG = encoded(kind="PNG")
PRIVATE = png_chunk(b"prVt", struct.pack(">II", 5, 5))
BAD = {
    "the first half": (encoded()[: len(encoded()) // 2], "truncated"),
    "all but the last two bytes": (encoded()[:-2], "truncated"),
    "nothing": (b"", "it is empty"),
    "a web page": (b"<html><body>404 Not Found</body></html>", "not an image of a known format"),
    "a GIF": (encoded(kind="GIF"), "not an image of a known format"),
    "a PNG of 400 million pixels": (png(20000, 20000), "20000 x 20000 pixels, more than 64 million"),
    "a JPEG header of 4290 million pixels": (jpeg_of(65500, 65500), "65500 x 65500 pixels, more than 64 million"),
    "a BMP header of 100 million pixels": (bmp_header(10000, 10000), "10000 x 10000 pixels, more than 64 million"),
    "a PNG with a changed byte": (changed(PNG, len(PNG) // 2), "broken data stream"),
    "a PNG whose first chunk is no header": (
        png(60, 45, png_lines(45, 180), first=PRIVATE),
        "says 5 x 5, but it has 60 x 45",
    ),
}


@pytest.mark.parametrize(("data", "reason"), BAD.values(), ids=BAD.keys())
def test_a_bad_image_is_recognized_with_its_reason(tmp_path, data, reason):
    found = look(tmp_path, data)
    assert reason in found.reason
    assert found == Look(reason=found.reason)


def test_a_file_of_more_than_32_megabytes_is_refused_unread(tmp_path):
    file = tmp_path / "image.jpg"
    file.write_bytes(encoded())
    os.truncate(file, 32 * 2**20 + 1)
    assert "more than 32 MB" in look_at(Place(str(file), 0, 32 * 2**20 + 1), "image.jpg").reason


@pytest.mark.parametrize("change", [-1, 1])
def test_a_file_of_another_length_than_in_the_index_is_bad(tmp_path, change):
    file = tmp_path / "image.jpg"
    file.write_bytes(encoded())
    found = look_at(Place(str(file), 0, len(encoded()) + change), "image.jpg")
    assert "no longer has" in found.reason


def test_a_file_that_is_gone_is_bad(tmp_path):
    assert look_at(Place(str(tmp_path / "image.jpg"), 0, 100), "image.jpg").reason == "no such file or directory"


def test_an_error_that_no_decoder_should_raise_is_a_reason_too(tmp_path, monkeypatch):
    monkeypatch.setattr(verification, "decode", lambda data: data[len(data)])
    assert look(tmp_path, encoded()).reason == "IndexError: index out of range"


def test_running_out_of_memory_is_not_held_against_the_image(tmp_path, monkeypatch):
    def too_much(data):
        raise MemoryError

    monkeypatch.setattr(verification, "decode", too_much)
    with pytest.raises(MemoryError):
        look(tmp_path, encoded())


def with_orientation(number: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = number
    return encoded(exif=exif)


GREY_16 = Image.fromarray(PIXELS[..., 0].astype(np.uint16) * 257)
NONE = Remark(0)
FINE = {
    "JPEG": (encoded(), "a.JPEG", "JPEG RGB", NONE),
    "grey JPEG": (encoded(SOUND.convert("L")), "a.jpg", "JPEG grey", NONE),
    "CMYK JPEG": (encoded(SOUND.convert("CMYK")), "a.jpg", "JPEG CMYK", NONE),
    "progressive JPEG": (encoded(progressive=True), "a.jpg", "JPEG RGB", Remark.PROGRESSIVE),
    "JPEG with trailing garbage": (encoded() + b"garbage", "a.jpg", "JPEG RGB", Remark.TRAILING),
    "turned JPEG": (with_orientation(6), "a.jpg", "JPEG RGB", Remark.TURNED),
    "upright JPEG": (with_orientation(1), "a.jpg", "JPEG RGB", NONE),
    "JPEG with damaged EXIF": (encoded(exif=b"Exif\0\0II*\0\xff\xff"), "a.jpg", "JPEG RGB", NONE),
    "PNG": (PNG, "a.png", "PNG RGB", NONE),
    "PNG named .JPEG": (PNG, "a.JPEG", "PNG RGB", Remark.MISNAMED),
    "PNG with alpha": (encoded(SOUND.convert("RGBA"), "PNG"), "a.png", "PNG RGB with alpha", NONE),
    "palette PNG": (encoded(SOUND.convert("P"), "PNG"), "a.png", "PNG palette", NONE),
    "16-bit grey PNG": (encoded(GREY_16, "PNG"), "a.png", "PNG grey 16-bit", NONE),
    "16-bit RGB PNG": (png(60, 45, png_lines(45, 360), depth=16), "a.png", "PNG RGB 16-bit", NONE),
    "PNG with trailing garbage": (PNG + b"garbage", "a.png", "PNG RGB", Remark.TRAILING),
    "PNG without its last chunk": (PNG[:-12], "a.png", "PNG RGB", Remark.ENDLESS),
    "BMP": (encoded(kind="BMP"), "a.bmp", "BMP RGB", NONE),
}


@pytest.mark.parametrize(("data", "name", "kind", "remarks"), FINE.values(), ids=FINE.keys())
def test_an_odd_image_that_decodes_is_only_described(tmp_path, data, name, kind, remarks):
    found = look(tmp_path, data, name)
    assert found[:4] == (kind, 45, 60, remarks)
    assert found.reason == ""


def test_a_changed_byte_with_which_the_image_decodes_is_not_found(tmp_path):
    """What the documentation says: only a list of checksums would tell."""
    data = encoded()
    sound, other = look(tmp_path, data), look(tmp_path, changed(data, len(data) * 3 // 4))
    assert other._replace(digest=sound.digest) == sound
    assert other.digest != sound.digest


@pytest.fixture
def odd(small: Path) -> Path:
    """Eight images of two classes, of which one is cut, one is empty and one is a grey PNG."""
    cut, empty, grey = (small / name for name in ("class0/002.jpg", "class1/003.jpg", "class1/005.jpg"))
    cut.write_bytes(cut.read_bytes()[:-2])
    empty.write_bytes(b"")
    Image.open(grey).convert("L").save(grey, format="PNG")
    return small


def test_a_survey_has_a_figure_for_each_image(odd):
    index = scan_folder(odd)
    found = survey({"train": index})["train"]
    for row, name in enumerate(index.names):
        if name in ("class0/002.jpg", "class1/003.jpg"):
            assert row not in found.usable
            assert found.sizes[row].tolist() == [0, 0]
            continue
        with Image.open(odd / name) as image:
            assert tuple(found.sizes[row]) == (image.height, image.width)
        expected = hashlib.blake2b((odd / name).read_bytes(), digest_size=8).digest()
        assert found.digests[row].tobytes() == expected
    assert found.count_kinds() == {"JPEG RGB": 5, "PNG grey": 1}
    assert [index.names[row] for row in found.rows_with(Remark.MISNAMED)] == ["class1/005.jpg"]
    assert list(found.bad) == ["class0/002.jpg", "class1/003.jpg"]
    assert found.bad["class1/003.jpg"] == "it is empty"


def test_two_processes_find_what_one_finds(odd, monkeypatch):
    splits = {"train": scan_folder(odd), "val": scan_folder(odd)}
    monkeypatch.setattr(verification, "CHUNK", 3)
    done = []
    with processes(2) as executor:
        together = survey(splits, executor=executor, workers=2, seen=done.append)
    assert sorted(done) == [2, 2, 3, 3, 3, 3]
    for split, alone in survey(splits).items():
        other = together[split]
        assert other.bad == alone.bad
        assert other.count_kinds() == alone.count_kinds()
        for column in ("digests", "remarks", "sizes"):
            np.testing.assert_array_equal(getattr(other, column), getattr(alone, column))


def test_a_worker_that_dies_ends_the_survey_with_the_images_it_may_have_died_of(odd, monkeypatch):
    monkeypatch.setattr(verification, "CHUNK", 1)
    splits = dict.fromkeys("abcdefgh", scan_folder(odd))
    done = []

    def kill(count: int) -> None:
        done.append(count)
        if len(done) == 10:
            for process in multiprocessing.active_children():
                process.kill()

    with (
        processes(2) as executor,
        pytest.raises(UserError, match=r"(?s)worker process died .*fewer --workers") as error,
    ):
        survey(splits, executor=executor, workers=2, seen=kill)
    suspects = re.findall(r"^  ([a-h]/class\d/00\d.jpg) to \1$", str(error.value), flags=re.MULTILINE)
    assert 1 <= len(suspects) <= 2 * JOBS_PER_WORKER


@pytest.fixture
def repeated(tmp_path: Path) -> dict[str, Index]:
    """Images of contents 0 to 6, and two empty files."""
    contents = {
        "train": {"a": [0, 1, 1, 2], "b": [2, 3, None, 6]},
        "val": {"a": [3, 4, None], "b": [1, 5, 6]},
    }
    for split, classes in contents.items():
        for name, numbers in classes.items():
            (tmp_path / split / name).mkdir(parents=True)
            for i, number in enumerate(numbers):
                data = b"" if number is None else encoded(Image.fromarray(PIXELS[number:]))
                (tmp_path / split / name / f"{i}.jpg").write_bytes(data)
    return {split: scan_folder(tmp_path / split) for split in contents}


def test_images_with_equal_bytes_are_found_across_splits(repeated):
    """Against a table of the files by their sha256."""
    by_content = defaultdict(list)
    for split, index in repeated.items():
        for row in range(len(index)):
            by_content[hashlib.sha256(Path(index.place(row).path).read_bytes()).digest()].append(Seen(split, row))
    del by_content[hashlib.sha256(b"").digest()]
    expected = sorted(group for group in by_content.values() if len(group) > 1)
    assert len(expected) == 4
    assert duplicates(survey(repeated)) == expected


def test_equal_images_are_sorted_by_what_they_spoil(repeated):
    one = [Seen("train", 1), Seen("train", 2), Seen("val", 3)]
    two = [Seen("train", 3), Seen("train", 4)]
    three = [Seen("train", 5), Seen("val", 0)]
    six = [Seen("train", 7), Seen("val", 5)]
    assert sort_duplicates(duplicates(survey(repeated)), repeated) == {
        "within a class": [one],
        "across classes": [one, two, three],
        "in train and val": [one, three, six],
    }


def test_different_images_are_not_equal(small):
    assert duplicates(survey({"train": scan_folder(small)})) == []


def test_a_split_without_a_usable_image_has_no_equal_ones(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.jpg").write_bytes(b"")
    assert duplicates(survey({"train": scan_folder(tmp_path)})) == []


WORDNET_IDS = tuple(f"n{1440764 + 13 * k:08d}" for k in range(1000))
TRAIN_COUNTS = [732] * 33 + [1211] + [1300] * 966
"""With ImageNet's fewest, most and sum."""


def counted(counts: list[int], classes: tuple[str, ...] = WORDNET_IDS) -> Index:
    """An index of which only the labels matter."""
    labels = np.repeat(np.arange(len(counts)), counts)
    nothing = np.zeros(len(labels), np.int64)
    return Index(Path(), classes, Strings.of([]), Strings.of([]), nothing, nothing, nothing, labels, "")


def with_count(counts: list[int], label: int, count: int) -> list[int]:
    return [*counts[:label], count, *counts[label + 1 :]]


def test_imagenet_has_the_counts_of_imagenet():
    assert sum(TRAIN_COUNTS) == IMAGENET["train"] == 1281167
    assert miscounts({"train": counted(TRAIN_COUNTS), "val": counted([50] * 1000)}) == []


def test_an_incomplete_imagenet_is_counted():
    train = counted(with_count(TRAIN_COUNTS, 0, 700))
    assert miscounts({"train": train, "val": counted([50] * 1000)}) == [
        "train has only 1281135 of ImageNet's 1281167 images",
        f"train has 1 of 1000 classes with fewer than 732 images: {WORDNET_IDS[0]} (700)",
    ]


def test_validation_images_in_the_wrong_class_are_noticed_though_none_is_missing():
    val = counted(with_count(with_count([50] * 1000, 5, 49), 7, 51))
    assert miscounts({"train": counted(TRAIN_COUNTS), "val": val}) == [
        f"val has 1 of 1000 classes with fewer than 50 images: {WORDNET_IDS[5]} (49)",
        f"val has 1 of 1000 classes with more than 50 images: {WORDNET_IDS[7]} (51)",
    ]


def test_too_many_images_are_not_called_few():
    found = miscounts({"train": counted(TRAIN_COUNTS), "val": counted(with_count([50] * 1000, 0, 51))})
    assert found[0] == "val has 50001 of ImageNet's 50000 images"


@pytest.mark.parametrize("classes", [WORDNET_IDS[:100], ("cat", *WORDNET_IDS[1:])], ids=["a hundred", "other names"])
def test_other_data_sets_may_have_any_count(classes):
    index = counted([3] * len(classes), classes)
    assert miscounts({"train": index, "val": index}) == []


def test_a_survey_costs_a_few_bytes_for_each_image():
    found = Survey.of(counted([1000]))
    each = sum(getattr(found, column).nbytes for column in ("kinds", "digests", "remarks", "sizes")) / 1000
    assert each <= 32
