"""Tests of the reader: the bytes of each image from files and archives, checked before anything decodes them."""

import io
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from backbones.data.augment.draws import DRAWS
from backbones.data.order import Plan
from backbones.data.reading.bad_images import BadImages
from backbones.data.reading.reader import Reader, as_bitmap
from backbones.dataset.index import Index, Row, make_index
from backbones.dataset.sources.folder import scan_folder
from backbones.errors import UserError
from backbones.recipe import Loading

SKIP = Loading(bad_images="skip", bad_images_limit=1.0)


def plan_of(*rows: int) -> Plan:
    return Plan(0, 0, np.array(rows), np.zeros((len(rows), DRAWS)))


def read(index: Index, *rows: int, loading: Loading | None = None, threads: int = 3):
    with closing(Reader(BadImages(index, loading), threads=threads)) as reader:
        return reader.read(plan_of(*rows))


@pytest.mark.parametrize("threads", [1, 3, 20])
def test_a_batch_holds_the_bytes_and_sizes_of_its_rows_in_order(split: Index, threads: int) -> None:
    rows = (40, 3, 3, 17, 0)
    batch = read(split, *rows, threads=threads)
    for row, data, size in zip(rows, batch.data, batch.sizes.tolist(), strict=True):
        path = split.place(row).path
        assert data.tobytes() == Path(path).read_bytes()
        with Image.open(path) as image:
            assert size == [image.height, image.width]
    assert batch.plan.rows.tolist() == list(rows)


def test_images_inside_an_archive_are_read_in_place(tmp_path: Path, split: Index) -> None:
    parts = [Path(split.place(row).path).read_bytes() for row in range(3)]
    (tmp_path / "all.tar").write_bytes(b"junk" + b"".join(parts))
    offsets = 4 + np.cumsum([0, *map(len, parts)])
    rows = [Row(0, f"a/{i}.jpg", "all.tar", int(offsets[i]), len(parts[i])) for i in range(3)]
    batch = read(make_index(tmp_path, ("a",), rows), 2, 0, 1)
    assert [data.tobytes() for data in batch.data] == [parts[2], parts[0], parts[1]]


def test_a_bad_image_stops_the_run_with_its_path_and_how_to_go_on(small: Path) -> None:
    index = scan_folder(small)
    Path(index.place(5).path).write_bytes(b"")
    with pytest.raises(UserError) as caught:
        read(scan_folder(small), *range(8), loading=Loading())
    assert str(caught.value).startswith(f"{index.place(5).path} cannot be decoded: it is empty.\n")
    assert "python -m backbones verify" in str(caught.value)
    assert "--bad-images skip" in str(caught.value)


def test_a_skipped_image_is_replaced_by_the_next_good_one_of_its_class(small: Path, capsys) -> None:
    index = scan_folder(small)  # rows 0-3 of class 0, 4-7 of class 1
    for row in (2, 3, 6):
        Path(index.place(row).path).write_bytes(b"")
    batch = read(scan_folder(small), *range(8), loading=SKIP)
    assert batch.plan.rows.tolist() == [0, 1, 0, 0, 4, 5, 7, 7]
    assert batch.asked.rows.tolist() == list(range(8))
    assert batch.data[3].tobytes() == Path(index.place(0).path).read_bytes()
    named = capsys.readouterr().err
    assert all(index.place(row).path in named for row in (2, 3, 6))


def test_validation_never_replaces_an_image(small: Path) -> None:
    Path(scan_folder(small).place(5).path).write_bytes(b"")
    with pytest.raises(UserError, match="Validation skips no image"):
        read(scan_folder(small), *range(8), loading=None)


def test_a_file_without_its_end_is_decoded_once_to_see_whether_it_is_whole(small: Path, monkeypatch) -> None:
    path = Path(scan_folder(small).place(5).path)
    path.write_bytes(path.read_bytes() + b"trailing")
    index = scan_folder(small)
    decoded: list[int] = []
    monkeypatch.setattr("backbones.data.reading.reader.decode", lambda data: decoded.append(len(data)))
    with closing(Reader(BadImages(index, Loading()), threads=1)) as reader:
        reader.read(plan_of(*range(8)))
        reader.read(plan_of(5))
    assert decoded == [path.stat().st_size]


def test_a_truncated_file_is_bad_wherever_it_was_cut(small: Path) -> None:
    path = Path(scan_folder(small).place(5).path)
    whole = path.read_bytes()
    for kept in (len(whole) - 2, len(whole) // 2, 300):
        path.write_bytes(whole[:kept])
        with pytest.raises(UserError, match=rf"{path} cannot be decoded"):
            read(scan_folder(small), 5, loading=Loading())


def test_a_foreign_image_is_handed_over_as_a_bitmap_of_the_same_pixels(split: Index) -> None:
    with closing(Reader(BadImages(split, None), threads=1)) as reader:
        reader.foreign.add(4)
        batch = reader.read(plan_of(4))
    with Image.open(split.place(4).path) as original, Image.open(io.BytesIO(batch.data[0].tobytes())) as bitmap:
        assert bitmap.format == "BMP"
        np.testing.assert_array_equal(np.asarray(bitmap), np.asarray(original))
    assert len(as_bitmap(batch.data[0].tobytes())) == len(batch.data[0])
