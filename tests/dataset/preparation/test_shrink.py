"""One smaller image, against torchvision's Resize on the same pixels."""

import io

import numpy as np
import pytest
import torchvision.transforms.v2.functional as F
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import InterpolationMode

from backbones.dataset.preparation.shrink import shrink, shrunk
from backbones.errors import UserError
from tests.dataset.make_sources import encode, picture


def encoded(mode: str = "RGB", kind: str = "JPEG", size: tuple[int, int] = (90, 60)) -> bytes:
    written = io.BytesIO()
    picture(mode, *size, seed=0).save(written, format=kind)
    return written.getvalue()


def opened(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content))


@given(width=st.integers(1, 4000), height=st.integers(1, 4000), short=st.integers(1, 600))
def test_the_size_is_torchvisions_and_never_larger(width: int, height: int, short: int) -> None:
    if short >= min(width, height):
        assert shrunk(width, height, short) == (width, height)
    else:
        tall, wide = F._geometry._compute_resized_output_size((height, width), size=[short])  # pyright: ignore
        assert shrunk(width, height, short) == (wide, tall)


@pytest.mark.parametrize(
    ("mode", "kind", "most"), [("L", "JPEG", 0.5), ("RGB", "JPEG", 4), ("CMYK", "JPEG", 4), ("RGBA", "PNG", 4)]
)
def test_the_pixels_are_torchvisions_antialiased_bicubic_ones(mode: str, kind: str, most: float) -> None:
    """Grey loses nearly nothing in a JPEG of quality 100, colour three quarters of its pixels."""
    content = encoded(mode, kind)
    theirs = F.resize(F.pil_to_tensor(opened(content).convert("RGB")), [24], InterpolationMode.BICUBIC, antialias=True)
    ours = np.asarray(opened(shrink(content, 24, quality=100))).astype(int)
    assert ours.shape == (24, 36, 3)
    assert np.abs(ours - theirs.permute(1, 2, 0).numpy()).mean() < most


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_small_plain_jpeg_keeps_its_bytes(mode: str) -> None:
    content = encoded(mode)
    assert shrink(content, 60, quality=10) == content


@pytest.mark.parametrize(("mode", "kind"), [("CMYK", "JPEG"), ("RGB", "PNG"), ("RGBA", "PNG"), ("L", "WEBP")])
def test_any_other_small_image_becomes_an_rgb_jpeg_of_its_size(mode: str, kind: str) -> None:
    mode = "RGB" if kind == "WEBP" else mode
    image = opened(shrink(encoded(mode, kind), 60, quality=90))
    assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (90, 60))


def test_16_bit_grey_becomes_the_same_grey_of_8_bits() -> None:
    ramp = np.arange(61 * 83).reshape(61, 83) * 65_535 // (61 * 83 - 1)
    written = io.BytesIO()
    Image.fromarray(ramp.astype(np.uint16)).save(written, format="PNG")
    ours = np.asarray(opened(shrink(written.getvalue(), 500, quality=100))).astype(float)
    assert np.abs(ours - ramp[..., None] / 257).mean() < 1


def test_floating_point_grey_is_refused_in_words() -> None:
    written = io.BytesIO()
    Image.new("F", (90, 60), 0.5).save(written, format="TIFF")
    with pytest.raises(UserError, match="floating-point"):
        shrink(written.getvalue(), 30, quality=90)


def test_quality_is_obeyed() -> None:
    content = encoded()
    assert len(shrink(content, 40, quality=95)) > 1.5 * len(shrink(content, 40, quality=50))


def test_the_same_image_gives_the_same_bytes() -> None:
    assert shrink(encode(3), 30, quality=90) == shrink(encode(3), 30, quality=90)


@pytest.mark.parametrize("lost", [1 / 2, 0.1])
@pytest.mark.parametrize("short_side", [30, 500])
def test_a_truncated_image_is_refused(lost: float, short_side: int) -> None:
    content = encoded()
    with pytest.raises(UserError, match="truncated"):
        shrink(content[: int(len(content) * (1 - lost))], short_side, quality=90)


@pytest.mark.parametrize("short_side", [30, 500])
def test_an_image_that_decodes_but_lost_a_part_is_refused(short_side: int) -> None:
    content = encoded()
    torn = content[: len(content) * 2 // 3] + content[-2:]
    assert opened(torn).convert("RGB").size == (90, 60)
    with pytest.raises(UserError, match=r"of its rows are lost \(libjpeg: Corrupt JPEG data"):
        shrink(torn, short_side, quality=90)


@pytest.mark.parametrize("content", [b"<html></html>", b"GIF89a" + bytes(100)])
def test_what_is_no_image_is_refused_in_words(content: bytes) -> None:
    with pytest.raises(UserError, match="not an image of a known format"):
        shrink(content, 30, quality=90)


def test_an_image_of_too_many_pixels_is_refused_before_it_is_decoded() -> None:
    written = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(written, format="PNG")
    with pytest.raises(UserError, match="pixels"):
        shrink(written.getvalue(), 30, quality=90)
