"""Files that decode, but lost a part of their data, are found; sound ones of every kind are not."""

import io
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from backbones.dataset.damage import find_damage, require_damage_check
from backbones.dataset.encoded import decode
from backbones.dataset.place import BadImageError
from backbones.errors import UserError
from tests.dataset.make_pictures import picture
from tests.dataset.odd_files import catalogue, with_segment, without_segment

ARITHMETIC = Path(__file__).parents[1] / "fixtures" / "arithmetic.jpg"
"""48 x 32 pixels, written by cjpeg -arithmetic of libjpeg-turbo 2.1.5."""

SIDE = 160
SHARPEST = Image.fromarray(picture(SIDE, SIDE, seed=4))


def encoded(image: Image.Image = SHARPEST, kind: str = "JPEG", **options) -> bytes:
    data = io.BytesIO()
    image.save(data, format=kind, **({"quality": 90} | options))
    return data.getvalue()


def scan_of(data: bytes) -> tuple[int, int]:
    """Return where the data of the only scan begin and end."""
    start = data.rindex(b"\xff\xda")
    return start + 2 + int.from_bytes(data[start + 2 : start + 4], "big"), len(data) - 2


def lose_tail(data: bytes) -> bytes:
    start, end = scan_of(data)
    return data[: start + (end - start) * 2 // 5] + data[end:]


def lose_middle(data: bytes) -> bytes:
    start, end = scan_of(data)
    return data[: start + (end - start) * 3 // 10] + data[start + (end - start) // 2 :]


def make_hole(data: bytes) -> bytes:
    start, end = scan_of(data)
    first, last = start + (end - start) * 3 // 10, start + (end - start) // 2
    return data[:first] + bytes(last - first) + data[last:]


def end_in_zeros(data: bytes) -> bytes:
    start, end = scan_of(data)
    first = start + (end - start) * 2 // 5
    return data[:first] + bytes(end - first) + data[end:]


def wrong_pixels(damaged: bytes, sound: bytes) -> float:
    """Return the share of the pixels that PIL decodes otherwise."""
    found, expected = (np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int) for data in (damaged, sound))
    return float((np.abs(found - expected).max(axis=2) > 24).mean())


SOUND = {
    "444": encoded(subsampling=0),
    "420": encoded(subsampling=2),
    "grey": encoded(SHARPEST.convert("L")),
    "CMYK": encoded(SHARPEST.convert("CMYK")),
    "optimized": encoded(optimize=True),
    "odd size": encoded(SHARPEST.crop((0, 0, 157, 131))),
    "restart markers": encoded(restart_marker_rows=1),
    "short restarts": encoded(restart_marker_blocks=3),
}
PROGRESSIVE = {
    "progressive": encoded(progressive=True),
    "and restarts": encoded(progressive=True, restart_marker_rows=1),
}
LOSSES = (end_in_zeros, lose_tail, lose_middle, make_hole)


@pytest.mark.parametrize("lose", LOSSES)
@pytest.mark.parametrize("sound", SOUND.values(), ids=SOUND)
def test_a_loss_inside_the_scan_is_found_with_its_size(sound: bytes, lose: Callable[[bytes], bytes]) -> None:
    damaged = lose(sound)
    wrong = wrong_pixels(damaged, sound)
    assert wrong > 0.1
    found = find_damage(damaged)
    share = int(re.search(r"(about|at least) (\d+)%", found)[2]) / 100  # type: ignore[index]
    assert "libjpeg: Corrupt JPEG data" in found
    if "about" in found or lose is lose_tail:
        assert share == pytest.approx(0.7 if lose in (lose_middle, make_hole) else 0.6, abs=0.12)
    assert 0.05 < share < 0.8


@pytest.mark.parametrize("sound", SOUND.values(), ids=SOUND)
def test_a_file_whose_end_is_zeros_is_bad_by_one_check_or_the_other(sound: bytes) -> None:
    damaged = end_in_zeros(sound)[:-2] + bytes(2)
    try:
        decode(damaged)
    except BadImageError:
        return
    assert "its picture are lost" in find_damage(damaged)


@pytest.mark.parametrize("lose", LOSSES)
@pytest.mark.parametrize("sound", PROGRESSIVE.values(), ids=PROGRESSIVE)
def test_a_damaged_scan_of_a_progressive_jpeg_is_named_by_its_number(sound: bytes, lose) -> None:
    assert find_damage(lose(sound)).startswith("scan 10 of its 10 is damaged")


def test_a_damaged_scan_and_the_missing_ones_after_it_are_told_together() -> None:
    sound = encoded(progressive=True)
    found = find_damage(sound[: len(sound) // 2] + b"\xff\xd9")
    assert re.match(r"scan \d of its \d is damaged, its last scans are missing: \d+% of its coefficients", found)


@pytest.mark.parametrize("kept", range(1, 10))
def test_missing_scans_are_found_though_libjpeg_does_not_warn(kept: int) -> None:
    sound = encoded(progressive=True)
    starts = [match.start() for match in re.finditer(rb"\xff\xda", sound)]
    assert "last scans are missing" in find_damage(sound[: starts[kept]] + b"\xff\xd9")


@pytest.mark.parametrize("sound", [*SOUND.values(), *PROGRESSIVE.values()], ids=[*SOUND, *PROGRESSIVE])
def test_sound_files_have_no_damage(sound: bytes) -> None:
    assert find_damage(sound) == ""


def test_no_file_of_the_catalogue_has_damage() -> None:
    assert {name: damage for name, data in catalogue().items() if (damage := find_damage(data))} == {}


def with_sos_end(data: bytes, end: bytes) -> bytes:
    start, _ = scan_of(data)
    return data[: start - 3] + end + data[start:]


HARMLESS = {
    "bytes after the end": SOUND["444"] + b"garbage" * 9,
    "zeros after the end": SOUND["444"] + bytes(5000),
    "no end mark": SOUND["444"][:-2],
    "zeros before the end": SOUND["444"][:-2] + bytes(3) + b"\xff\xd9",
    "fill bytes before the end": SOUND["444"][:-2] + b"\xff" * 5 + b"\xff\xd9",
    "another number of coefficients, which libjpeg ignores": with_sos_end(SOUND["444"], b"\0\0\0"),
    "an unknown JFIF version": SOUND["444"].replace(b"JFIF\0\1", b"JFIF\0\7", 1),
    "an unknown Adobe transform": with_segment(SOUND["444"], 0xEE, b"Adobe" + bytes((0, 100, 0, 0, 0, 0, 9))),
    "a damaged ICC profile": with_segment(SOUND["444"], 0xE2, b"ICC_PROFILE\0\5\1" + bytes(20)),
    "stray bytes between segments": SOUND["444"][:2] + b"\0\0\0" + SOUND["444"][2:],
    "no JFIF": without_segment(SOUND["444"], 0xE0),
    "arithmetic coding": ARITHMETIC.read_bytes(),
    "one colour": encoded(Image.new("RGB", (900, 700), (9, 90, 200))),
    "a ramp, progressive": encoded(Image.linear_gradient("L").resize((1024, 1024)), progressive=True),
    "one colour, optimized": encoded(Image.new("RGB", (900, 700)), optimize=True),
    "WebP": encoded(kind="WEBP"),
    "WebP of one colour": encoded(Image.new("RGB", (3000, 3000)), kind="WEBP"),
    "lossless WebP": encoded(kind="WEBP", lossless=True),
    "WebP with zeros in its metadata": encoded(kind="WEBP", exif=b"Exif\0\0MM\0*" + bytes(4000)),
}


@pytest.mark.parametrize("data", HARMLESS.values(), ids=HARMLESS)
def test_what_costs_no_pixel_is_no_damage(data: bytes) -> None:
    assert find_damage(data) == ""


@pytest.mark.parametrize("lossless", [False, True])
def test_a_hole_in_a_webp_is_found(lossless: bool) -> None:
    sound = encoded(kind="WEBP", lossless=lossless)
    first, last = len(sound) * 2 // 5, len(sound) * 3 // 5
    damaged = sound[:first] + bytes(last - first) + sound[last:]
    assert wrong_pixels(damaged, sound) > 0.1
    assert re.match("about 6[01]% of its picture are lost", find_damage(damaged))


def test_other_formats_are_left_to_their_decoders() -> None:
    assert find_damage(encoded(kind="PNG")) == find_damage(b"no image") == ""


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "simplejpeg", None)
    with pytest.raises(UserError, match=r"simplejpeg is needed.\nInstall it with pip install 'backbones\[train\]'"):
        require_damage_check()
