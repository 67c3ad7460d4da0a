"""Tests of class folders: the images and their order, links, and refused folders."""

import os
import shutil
from pathlib import Path

import pytest
from torchvision.datasets import ImageFolder

from backbones.dataset.sources.folder import fits, scan, scan_folder
from backbones.errors import UserError


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    return root


def test_files_are_found_below_classes_sorted_and_labelled(tmp_path: Path) -> None:
    names = ("b/2.jpg", "b/deep/er/1.PNG", "a/9.JPEG", "a/10.jpg", "a/._9.jpg", "a/.notes.txt", ".cache/1.jpg")
    index = scan_folder(touch(tmp_path, *names))
    assert index.classes == ("a", "b")
    assert list(index.names) == ["a/10.jpg", "a/9.JPEG", "b/2.jpg", "b/deep/er/1.PNG"]
    assert index.labels.tolist() == [0, 0, 1, 1]
    assert index.place(3) == (f"{tmp_path}/b/deep/er/1.PNG", 0, len("b/deep/er/1.PNG"))
    assert index.notes == ()


def test_it_agrees_with_torchvision(tmp_path: Path) -> None:
    root = touch(tmp_path, *(f"{c}/{c} {k}.{end}" for c in "xyz" for k, end in enumerate(["jpg", "JPEG", "png"] * 5)))
    index, theirs = scan_folder(root), ImageFolder(str(root))
    assert list(index.classes) == theirs.classes
    assert [(index.place(row).path, index.labels[row]) for row in range(len(index))] == theirs.samples


def test_links_that_lead_back_are_not_walked_and_are_named(tmp_path: Path) -> None:
    root = touch(tmp_path / "root", "a/1.jpg", "b/1.jpg")
    (root / "loop").symlink_to(root)
    (root / "up").symlink_to(tmp_path)
    (root / "a" / "deep").symlink_to(root)
    index = scan_folder(root)
    assert list(index.names) == ["a/1.jpg", "b/1.jpg"]
    assert index.notes == (f"{root}: 3 symbolic links to folders are not followed: a/deep, loop, up",)


def test_a_class_folder_and_a_file_may_be_links(tmp_path: Path) -> None:
    store = touch(tmp_path / "store", "x/1.jpg", "file.jpg")
    root = touch(tmp_path / "root", "a/1.jpg")
    (root / "b").symlink_to(store / "x")
    (root / "a" / "2.jpg").symlink_to(store / "file.jpg")
    index = scan_folder(root)
    assert list(index.names) == ["a/1.jpg", "a/2.jpg", "b/1.jpg"]
    assert index.lengths.tolist() == [len("a/1.jpg"), len("file.jpg"), len("x/1.jpg")]
    assert index.notes == ()


def test_an_image_that_a_link_reaches_again_is_used_once_and_noted(tmp_path: Path) -> None:
    root = touch(tmp_path / "root", "a/5.jpg", "b/1.jpg")
    (root / "a" / "1.jpg").symlink_to(root / "a" / "5.jpg")
    index = scan_folder(root)
    assert list(index.names) == ["a/5.jpg", "b/1.jpg"]
    assert index.notes == (f"{root}: 1 symbolic links reach an image again, which is used once: a/1.jpg",)


def test_of_two_links_to_one_file_elsewhere_the_first_is_kept(tmp_path: Path) -> None:
    store, root = touch(tmp_path / "store", "1.jpg"), touch(tmp_path / "root", "b/1.jpg")
    (root / "a").mkdir()
    for name in ("a/1.jpg", "b/2.jpg"):
        (root / name).symlink_to(store / "1.jpg")
    assert list(scan_folder(root).names) == ["a/1.jpg", "b/1.jpg"]


def test_a_class_that_is_a_link_to_another_class_is_refused(tmp_path: Path) -> None:
    root = touch(tmp_path, "a/1.jpg", "a/2.jpg")
    (root / "b").symlink_to(root / "a")
    with pytest.raises(UserError, match="classes without images: b"):
        scan_folder(root)


def test_hard_links_are_images_of_their_own(tmp_path: Path) -> None:
    root = touch(tmp_path / "root", "a/1.jpg", "b/3.jpg")
    os.link(root / "a" / "1.jpg", root / "a" / "2.jpg")
    (root / "b" / "4.jpg").symlink_to(root / "b" / "3.jpg")  # so that links are looked at closely
    assert list(scan_folder(root).names) == ["a/1.jpg", "a/2.jpg", "b/3.jpg"]


def test_hard_links_behind_a_linked_class_folder_are_images_of_their_own(tmp_path: Path) -> None:
    store = touch(tmp_path / "store", "1.jpg")
    os.link(store / "1.jpg", store / "2.jpg")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "a").symlink_to(store)
    assert list(scan_folder(tmp_path / "root").names) == ["a/1.jpg", "a/2.jpg"]


@pytest.mark.parametrize("name", ["lost", "a/lost.jpg", "a/deep/lost"])
def test_a_link_that_points_nowhere_is_refused_by_name(tmp_path: Path, name: str) -> None:
    root = touch(tmp_path, "a/1.jpg", "a/deep/1.jpg")
    (root / name).symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError, match=f"point nowhere: {root}/{name}"):
        scan_folder(root)


def test_an_empty_file_is_kept_for_those_who_read_it(tmp_path: Path) -> None:
    (touch(tmp_path, "a/1.jpg") / "a" / "2.jpg").touch()
    assert scan_folder(tmp_path).lengths.tolist() == [7, 0]


def test_a_pipe_is_not_an_image(tmp_path: Path) -> None:
    os.mkfifo(touch(tmp_path, "a/1.jpg") / "a" / "2.jpg")
    assert list(scan_folder(tmp_path).names) == ["a/1.jpg"]


def test_images_outside_of_class_folders_are_left_out_and_named(tmp_path: Path) -> None:
    index = scan_folder(touch(tmp_path, "a/1.jpg", "loose.jpg", "readme.txt"))
    assert list(index.names) == ["a/1.jpg"]
    assert index.notes == (f"{tmp_path}: 1 images outside of class folders are left out: loose.jpg",)


def test_files_of_other_endings_in_class_folders_are_counted_and_the_odd_ones_named_first(tmp_path: Path) -> None:
    texts = [f"a/{k}.txt" for k in range(9)]
    index = scan_folder(touch(tmp_path, "a/1.jpg", *texts, "a/x.jfif", "a/deep/y.heic", "a/.z.jfif", "readme.txt"))
    names = "a/deep/y.heic, a/x.jfif, a/0.txt, a/1.txt, a/2.txt and 6 more"
    left_out = f"{tmp_path}: 11 files in class folders do not end as images do and are left out: {names}"
    assert (list(index.names), index.notes) == (["a/1.jpg"], (left_out,))


def test_file_names_need_not_be_utf8(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    path = os.fsdecode(os.fsencode(tmp_path) + b"/a/\xff.jpg")
    Path(path).touch()
    assert scan_folder(tmp_path).place(0).path == path


@pytest.mark.parametrize("name", ["val", "validation"])
def test_both_names_of_the_validation_folder_are_known(tmp_path: Path, name: str) -> None:
    root = touch(tmp_path, f"{name}/a/1.jpg")
    assert fits(root)
    assert list(scan(root, "val").names) == ["a/1.jpg"]


def test_two_validation_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="both a folder 'val' and a folder 'validation'"):
        scan(touch(tmp_path, "val/a/1.jpg", "validation/a/1.jpg"), "val")


@pytest.mark.parametrize(("split", "named"), [("train", "'train'"), ("val", "'val' or 'validation'")])
def test_a_missing_split_is_refused(tmp_path: Path, split, named: str) -> None:
    with pytest.raises(UserError, match=f"no folder {named}"):
        scan(tmp_path, split)


def test_a_class_without_images_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="classes without images: dog"):
        scan_folder(touch(tmp_path, "cat/1.jpg", "dog/readme.txt"))


@pytest.mark.parametrize("empty", [[], ["cat", "dog"]])
def test_a_split_without_images_is_refused(tmp_path: Path, empty: list[str]) -> None:
    for name in empty:
        (tmp_path / name).mkdir()
    with pytest.raises(UserError, match="CLASS"):
        scan_folder(tmp_path)


def test_the_fingerprint_follows_the_images_not_the_place(tmp_path: Path) -> None:
    before = scan_folder(touch(tmp_path / "here", "a/1.jpg", "b/1.jpg")).fingerprint
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    assert scan_folder(tmp_path / "there").fingerprint == before
    (tmp_path / "there" / "a" / "1.jpg").write_bytes(b"longer than before")
    assert scan_folder(tmp_path / "there").fingerprint != before


@pytest.mark.parametrize("name", ["@eaDir", "#recycle", "__MACOSX", "lost+found", "$RECYCLE.BIN"])
def test_folders_that_systems_make_are_no_classes_and_hold_no_images(tmp_path: Path, name: str) -> None:
    touch(tmp_path, *(f"{place}{name}/1.jpg/SYNOPHOTO_THUMB_M.jpg" for place in ("", "ant/", "ant/below/")))
    touch(tmp_path, "ant/1.jpg", "ant/below/2.jpg", "bee/3.jpg")
    index = scan_folder(tmp_path)
    assert index.classes == ("ant", "bee")
    assert list(index.names) == ["ant/1.jpg", "ant/below/2.jpg", "bee/3.jpg"]
    listed = ", ".join(sorted([name, f"ant/{name}", f"ant/below/{name}"]))
    assert index.notes == (f"{tmp_path}: 3 folders that systems make are left out: {listed}",)
