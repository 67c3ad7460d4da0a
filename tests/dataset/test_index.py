"""The index itself: its order, its fingerprint, its parts, and the file that it is written to."""

import hashlib
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backbones.dataset.index import (
    Index,
    Place,
    Row,
    Strings,
    find_repeated,
    make_index,
    places_digest,
    read_index,
    some,
    without_ending,
    write_index,
)
from backbones.errors import UserError
from tests.dataset.counted_text import CountedText, counted_names

ROWS = [
    Row(1, "dog/b.JPEG", "one.tar", 512, 10),
    Row(0, "cat/x.1.jpg", "cat/x.1.jpg", 0, 20),
    Row(0, "cat/x.png", "two.tar", 1024, 30),
    Row(1, "dog/a.JPEG", "one.tar", 2048, 40),
]
CLASSES = ("cat", "dog")


@pytest.fixture
def index(tmp_path: Path) -> Index:
    return make_index(tmp_path / "images", CLASSES, ROWS)


def contents(index: Index) -> list[tuple]:
    return [(index.names[k], *index.place(k), int(index.labels[k])) for k in range(len(index))]


def test_rows_are_sorted_by_class_and_name(index: Index, tmp_path: Path) -> None:
    root = f"{tmp_path}/images"
    assert contents(index) == [
        ("cat/x.png", f"{root}/two.tar", 1024, 30, 0),
        ("cat/x.1.jpg", f"{root}/cat/x.1.jpg", 0, 20, 0),
        ("dog/a.JPEG", f"{root}/one.tar", 2048, 40, 1),
        ("dog/b.JPEG", f"{root}/one.tar", 512, 10, 1),
    ]


@pytest.mark.parametrize(("ours", "theirs"), [(".JPEG", ".jpg"), (".png", ".JPG")])
def test_endings_change_neither_order_nor_fingerprint(tmp_path: Path, ours: str, theirs: str) -> None:
    def with_ending(ending: str) -> Index:
        names = ("a", "a.b", "a-b", "a.K", "a b", "a_b")
        return make_index(tmp_path, ("c",), [Row(0, f"c/{n}{ending}", n, 0, k) for k, n in enumerate(names)])

    assert with_ending(ours).lengths.tolist() == with_ending(theirs).lengths.tolist()
    assert with_ending(ours).fingerprint == with_ending(theirs).fingerprint


@pytest.mark.parametrize(
    "change", [{"name": "dog/c.JPEG"}, {"label": 0}, {"length": 11}, {"name": "dog/b.jpg", "file": "f", "offset": 1}]
)
def test_the_fingerprint_follows_names_labels_and_lengths_only(index: Index, tmp_path: Path, change: dict) -> None:
    changed = make_index(tmp_path, CLASSES, [ROWS[0]._replace(**change), *ROWS[1:]])
    assert (changed.fingerprint == index.fingerprint) == ("file" in change)


@pytest.mark.parametrize("change", [{"file": "three.tar"}, {"file": "two.tar"}, {"offset": 513}])
def test_the_digest_of_places_follows_what_the_fingerprint_leaves_out(index: Index, change: dict) -> None:
    changed = make_index(index.root, CLASSES, [ROWS[0]._replace(**change), *ROWS[1:]])
    assert changed.fingerprint == index.fingerprint
    assert places_digest(changed) != places_digest(index)


def test_the_digest_of_places_is_the_sha256_of_files_numbers_and_offsets(index: Index) -> None:
    files = b"two.tar\0cat/x.1.jpg\0one.tar\0\0"
    places = struct.pack("<8q", 0, 1, 2, 2, 1024, 0, 2048, 512)
    assert places_digest(index) == hashlib.sha256(files + places).hexdigest()


def test_the_digest_of_places_is_the_same_after_a_move_and_from_a_file(index: Index, tmp_path: Path) -> None:
    write_index(index, tmp_path / "x.npz")
    moved = make_index(tmp_path / "elsewhere", CLASSES, ROWS)
    assert places_digest(read_index(tmp_path / "x.npz")) == places_digest(moved) == places_digest(index)


def test_two_images_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"two images of the same name: dog/b\.JPEG"):
        make_index(tmp_path, CLASSES, [*ROWS, ROWS[0]._replace(offset=9)])


@given(texts=st.lists(st.text(st.characters(exclude_categories=["Cs"]))))
def test_strings_hold_any_texts(texts: list[str]) -> None:
    packed = Strings.of(texts)
    assert list(packed) == texts
    assert [packed[k - len(texts)] for k in range(len(texts))] == texts
    assert list(packed.take(np.arange(len(texts))[::-1])) == texts[::-1]


@pytest.mark.parametrize("place", [2, -3])
def test_strings_end_where_a_list_ends(place: int) -> None:
    with pytest.raises(IndexError):
        Strings.of(["a", "b"])[place]


def test_an_image_in_an_archive_is_described_with_its_name(index: Index) -> None:
    assert index.describe(1) == f"{index.root}/cat/x.1.jpg"
    assert index.describe(3) == f"dog/b.JPEG in {index.root}/one.tar at byte 512"


@pytest.mark.parametrize(
    ("path", "member"), [("x.tar", True), ("x.TAR", True), ("x.tar.jpg", False), ("xtar", False), ("x.jpg", False)]
)
def test_an_archive_is_known_by_its_ending(path: str, member: bool) -> None:
    assert Place(path, 0, 1).is_member == member


def test_a_part_is_the_index_of_these_images_alone(index: Index) -> None:
    part = index.take(np.array([2, 3]), ("dog",))
    alone = make_index(index.root, ("dog",), [row._replace(label=0) for row in ROWS if row.label == 1])
    assert contents(part) == contents(alone)
    assert (part.classes, part.fingerprint) == (alone.classes, alone.fingerprint)


def test_what_is_written_is_read(index: Index, tmp_path: Path) -> None:
    write_index(index, tmp_path / "x.npz")
    found = read_index(tmp_path / "x.npz")
    assert contents(found) == contents(index)
    assert (found.classes, found.fingerprint) == (index.classes, index.fingerprint)
    assert [path.name for path in tmp_path.iterdir()] == ["x.npz"]


def test_an_index_may_move_together_with_its_images(tmp_path: Path) -> None:
    (tmp_path / "before").mkdir()
    write_index(make_index(tmp_path / "before", CLASSES, ROWS), tmp_path / "before" / "x.npz")
    (tmp_path / "before").rename(tmp_path / "after")
    assert read_index(tmp_path / "after" / "x.npz").place(3) == Place(f"{tmp_path}/after/one.tar", 512, 10)


def test_an_index_elsewhere_may_move_alone(index: Index, tmp_path: Path) -> None:
    (tmp_path / "before").mkdir()
    write_index(index, tmp_path / "before" / "x.npz")
    (tmp_path / "before").rename(tmp_path / "after")
    assert read_index(tmp_path / "after" / "x.npz").place(3) == index.place(3)


def test_an_empty_index_is_written_and_read(tmp_path: Path) -> None:
    write_index(make_index(tmp_path, ("a",), []), tmp_path / "x.npz")
    assert len(read_index(tmp_path / "x.npz")) == 0


def test_a_missing_index_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"x\.npz is not a readable index"):
        read_index(tmp_path / "x.npz")


def test_an_index_that_was_changed_is_refused_or_says_the_same(index: Index, tmp_path: Path) -> None:
    file = tmp_path / "x.npz"
    write_index(index, file)
    whole = file.read_bytes()
    refused = 0
    for place in range(0, len(whole), 7):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        try:
            assert contents(read_index(file)) == contents(index)
        except UserError:
            refused += 1
    assert refused > len(whole) // 14


def test_a_truncated_index_is_refused(index: Index, tmp_path: Path) -> None:
    write_index(index, tmp_path / "x.npz")
    whole = (tmp_path / "x.npz").read_bytes()
    for length in range(0, len(whole), 97):
        (tmp_path / "x.npz").write_bytes(whole[:length])
        with pytest.raises(UserError, match=r"x\.npz is not a readable index"):
            read_index(tmp_path / "x.npz")


def test_an_index_of_another_version_is_refused(index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backbones.dataset.index.FORMAT_VERSION", 99)
    write_index(index, tmp_path / "x.npz")
    monkeypatch.undo()
    with pytest.raises(UserError, match="has format 99"):
        read_index(tmp_path / "x.npz")


def test_only_the_ending_of_an_image_file_is_no_part_of_its_name() -> None:
    names = ("a/b.JPEG", "a/b.c.jpg", "a/b.c", "a/b")
    assert [without_ending(name) for name in names] == ["a/b", "a/b.c", "a/b.c", "a/b"]


def test_few_names_are_all_said_and_many_are_counted() -> None:
    assert some(["a", "b"]) == "a, b"
    assert some(list("abcdefgh")) == "a, b, c, d, e and 3 more"


def test_the_names_of_classes_are_not_compared_with_each_other() -> None:
    """21,841 classes took 4 seconds each time, when each was looked for from the first one on."""
    classes = counted_names(2_000)
    index = make_index(Path(), classes, [Row(k, f"{name}/1.jpg", "x.tar", k, 1) for k, name in enumerate(classes)])
    half = index.take(np.arange(0, len(index), 2), classes[::2])
    assert half.labels.tolist() == list(range(1_000))
    assert CountedText.comparisons <= 3 * len(classes)


def test_a_repeated_name_is_found_once() -> None:
    assert find_repeated(["b", "a", "b", "c", "a", "b"]) == ["a", "b"]
    assert find_repeated(counted_names(2_000)) == []
    assert CountedText.comparisons <= 2_000


def test_two_classes_in_two_unicode_forms_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"'caf\\xe9' \(NFC\) and 'cafe\\u0301' \(NFD\)|'cafe\\u0301' \(NFD\) and"):
        make_index(tmp_path, ("cafe\u0301", "caf\u00e9"), [])
