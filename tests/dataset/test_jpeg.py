"""The structure of JPEG files, compared with what PIL and the generators know of them."""

import io
import struct

import pytest
from PIL import Image

from backbones.dataset.encoded import read_header
from backbones.dataset.jpeg import Band, parse_jpeg, read_bands, read_jpeg_header, split_at_restarts
from backbones.dataset.place import BadImageError
from tests.dataset.odd_files import HEIGHT, WIDTH, jpegs, saved, with_adobe, with_segment, without_segment

FILES = dict(jpegs())


@pytest.mark.parametrize("data", FILES.values(), ids=FILES)
def test_size_and_number_of_components_are_pils(data: bytes) -> None:
    channels = len(Image.open(io.BytesIO(data)).getbands())
    jpeg, header = parse_jpeg(data), read_jpeg_header(data)
    assert jpeg.size == header[:2] == (HEIGHT, WIDTH)
    assert list(jpeg.components) == list(header.components)
    assert len(header.components) == channels


def test_the_bare_file_has_the_same_pixels() -> None:
    usual = {name: data for name, data in FILES.items() if not read_header(data).is_unusual}
    assert len(usual) > 15
    for name, data in usual.items():
        bare, whole = (Image.open(io.BytesIO(each)) for each in (parse_jpeg(data).to_bytes(), data))
        assert bare.tobytes() == whole.tobytes(), name


def test_adobes_transform_is_found_behind_other_segments() -> None:
    plain = without_segment(saved("RGB", "JPEG"), 0xEE)
    assert read_jpeg_header(plain).adobe_transform is None
    for transform in (0, 1, 2):
        data = with_segment(with_adobe(plain, transform), 0xE1, b"Exif\0\0" + bytes(300))
        assert read_jpeg_header(data).adobe_transform == transform


def test_an_adobe_segment_of_another_meaning_is_ignored() -> None:
    data = with_segment(saved("RGB", "JPEG"), 0xEE, b"Ducky" + bytes(20))
    assert read_jpeg_header(data).adobe_transform is None


def test_scans_and_their_coefficients_are_those_of_libjpegs_progression() -> None:
    jpeg = parse_jpeg(saved("L", "JPEG", progressive=True))
    found = [next(read_bands(scan)) for scan in jpeg.scans]
    assert found == [Band(1, *rest) for rest in ((0, 0, 1), (1, 5, 2), (6, 63, 2), (1, 63, 1), (0, 0, 0), (1, 63, 0))]
    assert len(jpeg.up_to_scan(2).scans) == 2


def test_restart_markers_part_a_scan_into_its_intervals() -> None:
    jpeg = parse_jpeg(saved("RGB", "JPEG", subsampling=0, restart_marker_blocks=4))
    blocks = -(-WIDTH // 8) * -(-HEIGHT // 8)
    assert jpeg.restart_interval == 4
    assert len(split_at_restarts(jpeg.scans[0].scan)) == -(-blocks // 4)


def test_a_marker_like_sequence_in_a_comment_is_no_marker() -> None:
    data = with_segment(saved("RGB", "JPEG"), 0xFE, b"\xff\xc0" + struct.pack(">HBHHB", 17, 8, 1, 1, 3) + b"\xff\xda")
    assert read_jpeg_header(data)[:2] == parse_jpeg(data).size == (HEIGHT, WIDTH)


@pytest.mark.parametrize("kept", [2, 4, 30, 160])
def test_a_file_without_a_frame_is_refused(kept: int) -> None:
    data = saved("RGB", "JPEG")[:kept]
    for read in (parse_jpeg, read_jpeg_header):
        with pytest.raises(BadImageError, match="header is incomplete"):
            read(data)
