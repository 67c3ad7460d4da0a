"""Equal images are found across splits and sorted by what they spoil."""

import hashlib
import io
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from backbones.dataset.index import Index
from backbones.dataset.sources.folder import scan_folder
from backbones.dataset.verification.duplicates import Seen, find_duplicates, sort_duplicates
from backbones.dataset.verification.survey import survey

PIXELS = np.random.default_rng(5).integers(0, 256, (45, 60, 3), dtype=np.uint8)


def jpeg(number: int) -> bytes:
    data = io.BytesIO()
    Image.fromarray(PIXELS[number:]).save(data, format="JPEG")
    return data.getvalue()


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
                data = b"" if number is None else jpeg(number)
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
    assert find_duplicates(survey(repeated)) == expected


def test_equal_images_are_sorted_by_what_they_spoil(repeated):
    one = [Seen("train", 1), Seen("train", 2), Seen("val", 3)]
    two = [Seen("train", 3), Seen("train", 4)]
    three = [Seen("train", 5), Seen("val", 0)]
    six = [Seen("train", 7), Seen("val", 5)]
    assert sort_duplicates(find_duplicates(survey(repeated)), repeated) == {
        "within a class": [one],
        "across classes": [one, two, three],
        "in train and val": [one, three, six],
    }


def test_different_images_are_not_equal(small):
    assert find_duplicates(survey({"train": scan_folder(small)})) == []


def test_a_split_without_a_usable_image_has_no_equal_ones(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.jpg").write_bytes(b"")
    assert find_duplicates(survey({"train": scan_folder(tmp_path)})) == []
