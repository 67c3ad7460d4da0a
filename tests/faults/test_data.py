"""Rows 1 to 11 and 37: faults of a data set, and what training and evaluation make of each."""

import io
import os
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from backbones.errors import UserError
from tests import accelerate_state
from tests.faults.small_runs import BAD, CLASSES, evaluate, rows, spoil, train
from train_imagenet import main

pytestmark = pytest.mark.usefixtures("fresh_accelerate")

SKIP = ["--bad-images", "skip", "--bad-images-limit", "0.05"]


def half(data: bytes) -> bytes:
    return data[: len(data) // 2]


def without_end(data: bytes) -> bytes:
    return data[:-2]


def nothing(_: bytes) -> bytes:
    return b""


def web_page(_: bytes) -> bytes:
    return b"<!doctype html><title>404</title>"


def png_bomb(_: bytes) -> bytes:
    """A whole PNG of 20000 x 20000 pixels in a hundred kilobytes."""
    row = zlib.compress(bytes(1 + 20000 // 8) * 20000, 9)
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", 20000, 20000, 1, 0, 0, 0, 0)), (b"IDAT", row), (b"IEND", b"")]
    packed = [
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def jpeg_bomb(data: bytes) -> bytes:
    """A JPEG that claims 65500 x 65500 pixels."""
    frame = data.index(b"\xff\xc0")
    return data[: frame + 5] + struct.pack(">HH", 65500, 65500) + data[frame + 9 :]


FAULTS = [
    pytest.param(half, marks=pytest.mark.fault(1)),
    pytest.param(without_end, marks=pytest.mark.fault(1)),
    pytest.param(nothing, marks=pytest.mark.fault(2)),
    pytest.param(web_page, marks=pytest.mark.fault(4)),
    pytest.param(png_bomb, marks=pytest.mark.fault(37)),
    pytest.param(jpeg_bomb, marks=pytest.mark.fault(37)),
]


@pytest.mark.parametrize("loader", ["dali", "reference"])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_training_image_stops_the_run_with_its_path(data: Path, fault, loader: str) -> None:
    spoil(data / BAD, fault)
    with pytest.raises(UserError, match=rf"{data / BAD} cannot be decoded: .*\n.*--bad-images skip"):
        train(data, "--loader", loader)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_training_image_can_be_skipped_and_is_counted(data: Path, fault, capsys) -> None:
    spoil(data / BAD, fault)
    assert train(data, *SKIP).n == 21
    assert rows(data)[-2]["data/replaced"] == 1
    printed = capsys.readouterr()
    assert str(data / BAD) in printed.err
    assert "1 were replaced" in printed.out


def test_the_run_stops_above_one_in_ten_thousand(data: Path) -> None:
    spoil(data / BAD, half)
    with pytest.raises(UserError, match=r"1 of 64 training images .* more than --bad-images-limit 0\.0001"):
        train(data, "--bad-images", "skip")


@pytest.mark.fault(3)
@pytest.mark.parametrize("fault", [half, nothing, web_page])
def test_a_bad_validation_image_always_stops_and_is_never_replaced(data: Path, fault) -> None:
    bad = data / "val" / "bee" / "002.jpg"
    spoil(bad, fault)
    for words in ([], SKIP):
        with pytest.raises(UserError, match=rf"{bad} cannot be decoded.*\nValidation skips no image"):
            train(data, *words)
        shutil.rmtree(data.parent / "run", ignore_errors=True)


@pytest.mark.fault(5)
def test_a_flipped_byte_in_the_middle_decodes_and_is_not_noticed(data: Path) -> None:
    """Only a hash from before could tell; docs/data.md says so."""

    def flip(encoded: bytes) -> bytes:
        middle = len(encoded) * 3 // 4
        return encoded[:middle] + bytes([encoded[middle] ^ 0x10]) + encoded[middle + 1 :]

    spoil(data / BAD, flip)
    assert train(data).n == 21
    assert rows(data)[-2]["data/replaced"] == 0


@pytest.mark.fault(6)
@pytest.mark.parametrize("split", ["train", "val"])
def test_an_empty_class_is_named(data: Path, split: str) -> None:
    for path in (data / split / "cow").iterdir():
        path.unlink()
    with pytest.raises(UserError, match=rf"{data / split} has classes without images: cow"):
        train(data)


@pytest.mark.fault(7)
def test_a_missing_validation_folder_is_not_made_up_for(data: Path) -> None:
    shutil.rmtree(data / "val")
    with pytest.raises(UserError, match=rf"{data}(.|\n)*val"):
        train(data)


@pytest.mark.fault(7)
def test_flat_validation_images_are_said_to_lack_labels(data: Path) -> None:
    for path in sorted((data / "val").rglob("*.jpg")):
        path.rename(data / "val" / f"{path.parent.name}_{path.name}")
    for name in CLASSES:
        (data / "val" / name).rmdir()
    with pytest.raises(UserError, match="label"):
        train(data)


@pytest.mark.fault(8)
@pytest.mark.parametrize(("split", "other"), [("train", "val"), ("val", "train")])
def test_a_class_that_only_one_split_has_is_named(data: Path, split: str, other: str) -> None:
    shutil.copytree(data / split / "ant", data / split / "emu")
    with pytest.raises(UserError, match=rf"classes differ: only for .* in {data / split}: emu"):
        train(data)


@pytest.mark.fault(8)
def test_a_checkpoint_of_other_classes_is_not_evaluated(data: Path) -> None:
    train(data)
    shutil.copytree(data / "val" / "ant", data / "val" / "emu")
    with pytest.raises(UserError, match="has 5 classes, the checkpoint has 4; not in both: emu"):
        evaluate(data)


@pytest.mark.fault(9)
def test_links_are_walked_once_and_said_so(data: Path, capsys) -> None:
    (data / "train" / "ant" / "loop").symlink_to(data / "train")
    (data / "train" / "ant" / "again.jpg").symlink_to(data / "train" / "ant" / "000.jpg")
    train(data)
    printed = capsys.readouterr().out
    assert "64 training and 21 validation images" in printed
    assert "again.jpg" in printed or "000.jpg" in printed
    assert "loop" in printed


@pytest.mark.fault(10)
@pytest.mark.parametrize("batch_size", [1, 4, 8, 21, 64])
def test_every_validation_image_counts_once_for_any_batch(data: Path, batch_size: int) -> None:
    trained = train(data)
    assert evaluate(data, "--batch-size", str(batch_size)) == trained
    assert trained.n == 21


@pytest.mark.fault(11)
def test_a_batch_larger_than_the_data_set_is_refused(data: Path) -> None:
    with pytest.raises(UserError, match="batch_size=128 is larger than the data set of 64 images"):
        train(data, "--batch-size", "128")
    assert not (data.parent / "run" / "last").exists()


@pytest.mark.fault(11)
def test_the_tail_that_a_batch_leaves_out_is_printed(data: Path, capsys) -> None:
    train(data, "--batch-size", "7")
    assert "1 training images are left out of each epoch" in capsys.readouterr().out


def other_colours(kind: str) -> bytes:
    stream = io.BytesIO()
    noise = Image.fromarray(np.random.default_rng(5).integers(0, 256, (64, 64, 4), dtype=np.uint8))
    {
        "CMYK": lambda: Image.frombytes("CMYK", (64, 64), noise.tobytes()).save(stream, "JPEG"),
        "RGBA": lambda: noise.save(stream, "PNG"),
        "16 bit": lambda: Image.fromarray(np.full((64, 64), 30000, dtype=np.uint16)).save(stream, "PNG"),
    }[kind]()
    return stream.getvalue()


@pytest.mark.parametrize("kind", ["CMYK", "RGBA", "16 bit"])
def test_other_colour_modes_are_no_fault(data: Path, kind: str) -> None:
    spoil(data / BAD, lambda _: other_colours(kind))
    assert train(data).n == 21


def test_a_name_that_is_not_utf8_is_no_fault(data: Path) -> None:
    (data / BAD).rename((data / BAD).with_name(os.fsdecode(b"\xff\xfe.jpg")))
    assert train(data).n == 21


def test_a_resumed_run_goes_on_counting_replaced_images(data: Path) -> None:
    spoil(data / BAD, half)
    train(data, *SKIP)
    accelerate_state.reset()
    main(["--resume", str(data.parent / "run"), "--epochs", "2"])
    counted = [row["data/replaced"] for row in rows(data) if "data/replaced" in row]
    assert counted == sorted(counted)
    assert counted[-1] == 2
