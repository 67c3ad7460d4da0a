"""Named files are taken as they are, folders are searched, and what is not there is said."""

import os
from pathlib import Path

import pytest

from backbones.dataset.loose import File, find_files, index_files
from backbones.dataset.place import read_bytes
from backbones.errors import UserError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.jpg", "a/z.PNG", "a/b/c.webp", "notes.txt", ".hidden.jpg", "c.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    return tmp_path


def test_a_folder_gives_the_images_at_any_depth_sorted_by_path(folder):
    names = ["a/b/c.webp", "a/z.PNG", "b.jpg", "c.jpg"]
    assert find_files([str(folder)]) == [File(str(folder / name), len(name)) for name in names]


def test_named_files_keep_their_order_and_need_no_ending(folder):
    names = [str(folder / name) for name in ("notes.txt", "b.jpg", ".hidden.jpg")]
    assert [file.path for file in find_files(names)] == names


def test_bytes_of_names_that_are_not_text_survive(tmp_path):
    name = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.jpg")
    with open(name, "wb") as opened:  # noqa: PTH123
        opened.write(b"image")
    assert find_files([str(tmp_path)]) == find_files([name]) == [File(name, 5)]
    index = index_files(find_files([name]))
    assert read_bytes(index.place(0)) == b"image"
    assert index.describe(0) == name


def test_a_link_that_points_nowhere_is_a_file_without_bytes(folder):
    (folder / "a" / "lost.jpg").symlink_to("nowhere.jpg")
    assert File(str(folder / "a" / "lost.jpg"), -1) in find_files([str(folder)])


def test_paths_below_the_current_folder_are_read(folder, monkeypatch):
    monkeypatch.chdir(folder)
    index = index_files(find_files(["a", "b.jpg"]))
    assert [read_bytes(index.place(row)) for row in range(3)] == [b"a/b/c.webp", b"a/z.PNG", b"b.jpg"]


def test_what_is_no_image_folder_is_named(folder, monkeypatch):
    (folder / "empty").mkdir()
    (folder / "texts").mkdir()
    (folder / "texts" / "a.txt").touch()
    (folder / "lost").symlink_to("nowhere")
    os.mkfifo(folder / "pipe.jpg")
    for name, message in {
        "empty": r"empty holds no images\. Their names end in bmp, ",
        "texts": r"texts holds no images \(1 other files\)",
        "lost": "lost is a symbolic link that points nowhere",
        "pipe.jpg": "pipe.jpg is neither a regular file nor a folder",
        "b.jpeg": r"there is no .*b.jpeg\.",
        "notes": r"there is no .*notes\. Did you mean .*notes.txt\?",
    }.items():
        with pytest.raises(UserError, match=message):
            find_files([str(folder / name)])
    with pytest.raises(UserError, match="not from standard input"):
        find_files(["-"])


def test_a_folder_that_cannot_be_read_is_named(folder, monkeypatch):
    def refuse(_):
        raise PermissionError(13, "Permission denied", str(folder / "a"))

    monkeypatch.setattr("backbones.dataset.loose.list_images", refuse)
    with pytest.raises(UserError, match=r"a: Permission denied\.$"):
        find_files([str(folder)])
