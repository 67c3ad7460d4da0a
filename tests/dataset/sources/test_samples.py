"""Tests of the samples of a shard: which member is the image, and what is refused since that is not plain."""

from pathlib import Path

import pytest

from backbones.dataset.sources.samples import Samples, join_samples, read_samples, split_name
from backbones.errors import UserError
from tests.dataset.make_sources import pack, write

GOOD = {"0.jpg": b"image", "0.cls": b"3"}


def samples(root: Path, members: dict[str, bytes], split="train") -> Samples:
    return read_samples(write(root / "s.tar", pack(GOOD | members)), split)


def refusal(root: Path, members: dict[str, bytes], split="train") -> str:
    with pytest.raises(UserError) as caught:
        samples(root, members, split)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("./a.b/k.JPG", ("a.b/k", "jpg")),
        ("k.mask.png", ("k", "mask.png")),
        ("k", ("k", "")),
        ("a/.hidden.jpg", ("", "")),
    ],
)
def test_a_key_ends_at_the_first_dot_of_the_last_part(name: str, parts: tuple[str, str]) -> None:
    assert split_name(name) == parts


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("beside", ["0.mask.png", "0.seg.PNG", "0.thumb.jpg", "0.depth.x.tif", "0.fine.cls"])
def test_members_beside_a_plain_image_are_left_out(tmp_path: Path, beside: str, split) -> None:
    found = samples(tmp_path, {beside: b"1"}, split)
    assert [(each.key, each.image.name, each.label) for each in found.samples] == [("0", "0.jpg", "3")]
    assert found.beside == [beside]


@pytest.mark.parametrize(
    ("members", "reasons"),
    [
        ({"k.left.jpg": b"", "k.right.jpg": b"", "k.cls": b"0"}, ("no image k.jpg", "k.left.jpg", "k.right.jpg")),
        ({"k.image.jpg": b"", "k.img.jpg": b"", "k.cls": b"0"}, ("two images have the key 'k'",)),
        ({"k.image.jpg": b"", "k.image.cls": b"0"}, ("'k.image.cls' has a dot in its key",)),
        ({"k.mask.png": b"", "k.cls": b"0"}, ("no image k.jpg, only 'k.mask.png'",)),
        ({"w.1.jpg": b""}, ("'w' has no image w.jpg, only 'w.1.jpg'", "first dot")),
        ({"f.v1.jpg": b"", "f.v1.cls": b"0"}, ("'f.v1.cls' has a dot in its key", "'v1.cls' of the sample 'f'")),
        ({"f.jpg": b"", "f.cls": b"0", "f.v1.jpg": b"", "f.v1.cls": b"0"}, ("'f.v1.cls' has a dot in its key",)),
        ({"deep/x.y.z.cls": b"0"}, ("'deep/x.y.z.cls' has a dot in its key", "'y.z.cls' of the sample 'deep/x'")),
        ({"a.jpg": b"", "a.png": b"", "a.cls": b"0"}, ("two images have the key 'a': a.jpg, a.png", "ambiguous")),
        ({"a.jpg": b"", "a.JPG": b"", "a.cls": b"0"}, ("two images have the key 'a': a.jpg, a.JPG",)),
        ({"a.jpg": b"", "a.cls": b"0", "a.CLS": b"1"}, ("two classes have the key 'a': a.cls, a.CLS",)),
        ({"x/a.cls": b"1"}, ("a .cls without an image: x/a",)),
        ({"a.jpg": b"1", "a.cls": b" "}, ("the class of 'a' is empty",)),
        ({"a.jpg": b"1", "a.cls": b"1" * 2000}, ("the class of 'a' has 2000 bytes",)),
    ],
)
def test_a_sample_that_is_not_plain_is_refused_with_shard_and_reason(tmp_path: Path, members, reasons) -> None:
    message = refusal(tmp_path, members)
    assert all(reason in message for reason in (str(tmp_path / "s.tar"), *reasons)), message


@pytest.mark.parametrize("part", ["image", "IMG"])
def test_an_image_that_is_called_so_needs_no_plain_name(tmp_path: Path, part: str) -> None:
    image = f"k.{part}.jpg"
    found = samples(tmp_path, {image: b"", "k.thumb.jpg": b"", "k.mask.png": b"", "k.cls": b"7"})
    assert [(each.key, each.image.name, each.suffix, each.label) for each in found.samples[1:]] == [
        ("k", image, "jpg", "7")
    ]
    assert found.beside == ["k.thumb.jpg", "k.mask.png"]


def test_an_image_without_class_is_left_out_of_training_only(tmp_path: Path) -> None:
    members = {"x/a.jpg": b"", "x/a.json": b"{}"}
    assert samples(tmp_path, members).unlabelled == ["x/a.jpg"]
    message = refusal(tmp_path, members, "val")
    assert "1 images without a .cls: x/a. Their x/a.json is not read" in message
    assert "never shortened" in message


def test_folders_of_systems_are_left_out(tmp_path: Path) -> None:
    found = samples(tmp_path, {"@eaDir/0/SYNOPHOTO_THUMB.jpg": b"", "__MACOSX/0.jpg": b""})
    assert found.clutter == ["@eaDir/0/SYNOPHOTO_THUMB.jpg", "__MACOSX/0.jpg"]
    assert len(found.samples) == 1


def test_shards_are_joined_in_their_order(tmp_path: Path) -> None:
    one, two = samples(tmp_path, {"0.mask.png": b""}), samples(tmp_path, {"0.seg.png": b"", "z.jpg": b""})
    assert join_samples([one, two]) == Samples(one.samples + two.samples, ["0.mask.png", "0.seg.png"], ["z.jpg"], [])
    assert join_samples([]) == Samples([], [], [], [])
