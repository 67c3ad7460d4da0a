"""Fingerprints and places of small data sets as earlier versions computed them: a later version must find the same."""

import hashlib
from pathlib import Path

import pytest

from backbones.dataset.index import places_digest
from backbones.dataset.splits import train_and_val
from tests.dataset.make_sources import pack, write

IMAGES = {name: f"image {name}".encode() * (1 + number) for number, name in enumerate("abcdefgh")}
"""Contents of the images; nothing is decoded here."""


def write_class_folders(root: Path) -> None:
    """Write names of several lengths and endings, folders below a class, other files, and letters with accents."""
    for split in ("train", "validation"):
        for name in (
            "n02/x.JPEG",
            "n02/below/x.jpg",
            "n1/2.png",
            "n1/10.png",
            "caf\u00e9/d\u00e9j\u00e0.webp",
            "A b/1.jpg",
        ):
            write(root / split / name, name.encode() * 3)
        write(root / split / "n1" / "boxes.txt", b"0")
        write(root / split / "loose.jpg", b"left out")
    (root / "train" / "n1" / "again.png").symlink_to("2.png")


def write_numbered_shards(root: Path) -> None:
    """Write labels as numbers, keys with and without folders, upper-case endings and members that are no images."""
    for split in ("train", "val"):
        for shard in (0, 1):
            members: dict[str, bytes] = {}
            for number, (name, content) in enumerate(IMAGES.items()):
                key = f"{shard}/{name}{number}-{shard}" if number % 2 else f"{name}{number}-{shard}"
                members |= {f"{key}.JPG" if number == 3 else f"{key}.jpg": content}
                members |= {f"{key}.cls": str(number % 3 * 5).encode(), f"{key}.json": b"{}"}
            write(root / f"{split}-{shard:06d}.tar", pack(members))


def write_named_shards(root: Path) -> None:
    """Write labels as names, among them one with an accent that is composed, and a README."""
    for split in ("train", "val"):
        members: dict[str, bytes] = {"README": b"hello", ".hidden.jpg": b"left out"}
        for number, (name, content) in enumerate(IMAGES.items()):
            members |= {f"./x{name}.png": content, f"./x{name}.cls": ("zebra", "\u00e9lan", "ant")[number % 3].encode()}
        write(root / f"small-{split}-0.TAR", pack(members))


def write_tiny_folders(root: Path) -> None:
    """Write Tiny-ImageNet as scripts sort it: images/ below each class, in both splits, and its own lists."""
    for split in ("train", "val"):
        for wnid in ("n01443537", "n01629819"):
            for number in range(3):
                write(root / split / wnid / "images" / f"{wnid}_{number}.JPEG", f"{split} {wnid} {number}".encode())
    write(root / "train" / "n01443537" / "n01443537_boxes.txt", b"")
    write(root / "wnids.txt", b"n01629819\nn01443537\n")
    write(root / "test" / "images" / "test_0.JPEG", b"x")


RECORDED = {
    "write_class_folders": "4098909b903a435ad9760c7eac2faefc182f91dcff8ca024186c396fcb0b8e11",
    "write_numbered_shards": "f76e90a5b4879ee36a005717e67dda16c62208a5655cb0fe24c687d36faa67bf",
    "write_named_shards": "d92ac0975a96cdd2dc6a61c68292a2ed5a015030bd96aad5cbd62de90b137716",
    "write_tiny_folders": "8541b7b8f2c47cae125b76f2c4ea4f0d24e38336948151c56934d9ae1546deae",
}
"""sha256 of fingerprints, digests of places and names of both splits."""


@pytest.mark.parametrize("layout", [write_class_folders, write_numbered_shards, write_named_shards, write_tiny_folders])
def test_a_data_set_keeps_its_fingerprint_and_its_places(tmp_path: Path, layout) -> None:
    layout(tmp_path)
    found = [(index.fingerprint, places_digest(index), list(index.names)) for index in train_and_val(tmp_path)]
    assert hashlib.sha256(repr(found).encode()).hexdigest() == RECORDED[layout.__name__]
