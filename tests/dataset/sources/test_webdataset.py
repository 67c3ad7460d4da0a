"""Tests of shards: their splits, the names of their classes, and refused shards."""

from pathlib import Path

import pytest

from backbones.dataset.place import read_bytes
from backbones.dataset.sources.webdataset import find_shards, fits, read_class_names, scan, scan_shards
from backbones.errors import UserError
from tests.dataset.counted_text import CountedText, counted_names
from tests.dataset.make_sources import WNIDS, Images, pack, write


def shard(root: Path, members: dict[str, bytes], name: str = "train-000000.tar") -> Path:
    write(root / name, pack(members))
    return root


def pairs(labels: list[str]) -> dict[str, bytes]:
    """Members of one image for each label; keys count from 0."""
    images = {f"{k}.jpg": b"image" for k in range(len(labels))}
    return images | {f"{k}.cls": label.encode() for k, label in enumerate(labels)}


def refusal(root: Path) -> str:
    with pytest.raises(UserError) as caught:
        scan(root, "train")
    return str(caught.value)


def test_the_images_of_both_splits_are_found(webdataset: Path, images: Images) -> None:
    for split in ("train", "val"):
        index = scan(webdataset, split)
        assert list(index.names) == sorted(name.replace(".JPEG", ".jpg") for name in images[split])
        assert index.classes == WNIDS


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train-000000.tar", "train"),
        ("imagenet1k-train-0000.tar", "train"),
        ("ImageNet_Train_3.tar", "train"),
        ("train-00000-of-00001.tar", "train"),
        ("val-000000.tar", "val"),
        ("imagenet1k-validation-00.tar", "val"),
        ("intervals-0.tar", None),
        ("ILSVRC2012_img_train_t3.tar", None),
        ("ILSVRC2012_bbox_val_v3.tgz", None),
        ("ILSVRC2012_bbox_train_v2.tar.gz", None),
        ("ILSVRC2012-train-0.tar", "train"),
        ("ILSVRC2012_train-0.tar", "train"),
        ("train-0.TAR", "train"),
        ("ilsvrc2012_img_train.TAR", None),
        ("train.targets.txt", None),
        (".train-000000.tar", None),
        ("train.txt", None),
    ],
)
def test_the_name_of_a_shard_tells_its_split(tmp_path: Path, name: str, split: str | None) -> None:
    shard(tmp_path, pairs(["0"]), name)
    assert [kind for kind in ("train", "val") if find_shards(tmp_path, kind)] == ([split] if split else [])  # pyright: ignore[reportArgumentType]
    assert fits(tmp_path) == (split is not None)


def test_without_names_classes_are_numbers_that_sort_as_numbers(tmp_path: Path) -> None:
    index = scan(shard(tmp_path, pairs([str(k) for k in range(101)])), "train")
    assert index.classes[:3] == ("000", "001", "002")
    assert index.classes[-1] == "100"
    assert dict(zip(index.names, index.labels.tolist(), strict=True)) == {f"{k:03d}/{k}.jpg": k for k in range(101)}


def test_names_of_classes_need_not_be_sorted(tmp_path: Path) -> None:
    write(shard(tmp_path, pairs(["0", "1", "2"])) / "classnames.txt", b"zebra\nant\nbee\n")
    index = scan(tmp_path, "train")
    assert index.classes == ("ant", "bee", "zebra")
    assert list(index.names) == ["ant/1.jpg", "bee/2.jpg", "zebra/0.jpg"]


def test_classes_may_be_written_as_names(tmp_path: Path) -> None:
    index = scan(shard(tmp_path, pairs(["zebra\n", "ant", "zebra"])), "train")
    assert list(index.names) == ["ant/1.jpg", "zebra/0.jpg", "zebra/2.jpg"]


def test_what_follows_the_first_dot_is_the_kind_of_a_member(tmp_path: Path) -> None:
    members = {
        "./a/b.c/k.PNG": b"1",
        "./a/b.c/k.cls": b"0",
        "./a/b.c/k.seg.txt": b"",
        "._k.jpg": b"",
        "x.json": b"",
    }
    assert list(scan(shard(tmp_path, members), "train").names) == ["0/k.png"]


@pytest.mark.parametrize(("label", "reason"), [("2", r"\[0, 2\)"), ("-1", r"\[0, 2\)"), ("99999999999", r"\[0, 2\)")])
def test_a_label_out_of_range_is_refused_with_shard_and_key(tmp_path: Path, label: str, reason: str) -> None:
    write(shard(tmp_path, pairs(["0", "1", label])) / "classes.txt", b"a\nb\n")
    with pytest.raises(UserError, match=rf"train-000000.tar: the class '{label}' of '2' does not lie in {reason}"):
        scan(tmp_path, "train")


def test_a_name_that_is_not_in_the_list_is_refused(tmp_path: Path) -> None:
    write(shard(tmp_path, pairs(["a", "c"])) / "classes.txt", b"a\nb\n")
    assert "'c' of '1' is not in the list of classes" in refusal(tmp_path)


def test_a_class_of_the_list_without_images_is_refused(tmp_path: Path) -> None:
    write(shard(tmp_path, pairs(["0", "0"])) / "classes.txt", b"a\nb\n")
    assert "classes without images: b" in refusal(tmp_path)


@pytest.mark.parametrize("split", ["train", "val"])
def test_keys_that_differ_in_their_folder_only_keep_it_in_the_name(tmp_path: Path, split) -> None:
    files = ("a/0", "a/1", "b/0", "b/2", "c/0")
    members = {f"{name}.jpg": name.encode() for name in files} | {f"{name}.cls": b"7" for name in files}
    index = scan(shard(tmp_path, members | {"d/0.jpg": b"d", "d/0.cls": b"8"}, f"{split}-0.tar"), split)
    assert list(index.names) == ["7/1.jpg", "7/2.jpg", "7/a/0.jpg", "7/b/0.jpg", "7/c/0.jpg", "8/0.jpg"]
    assert [read_bytes(index.place(row)) for row in range(6)] == [b"a/1", b"b/2", b"a/0", b"b/0", b"c/0", b"d"]


def test_what_is_left_out_is_said_with_its_count_and_examples(tmp_path: Path) -> None:
    members = pairs(["0"] * 4) | {f"{k}.mask.png": b"m" for k in range(3)} | {"x.jpg": b"", "@eaDir/0/T.jpg": b""}
    index = scan(shard(tmp_path, members), "train")
    assert list(index.names) == ["0/0.jpg", "0/1.jpg", "0/2.jpg", "0/3.jpg"]
    assert index.notes == (
        f"{tmp_path}: 3 members beside an image are left out: 0.mask.png, 1.mask.png, 2.mask.png",
        f"{tmp_path}: 1 of 5 images have no .cls and are left out of training: x.jpg",
        f"{tmp_path}: 1 members of folders that systems make are left out: @eaDir/0/T.jpg",
    )


def test_shards_without_any_class_say_so(tmp_path: Path) -> None:
    message = refusal(shard(tmp_path, {f"{k}.jpg": b"" for k in range(3)}))
    assert "no images with classes, but 3 images without a .cls: 0.jpg, 1.jpg, 2.jpg" in message


@pytest.mark.parametrize("name", ["train_val-0.tar", "validation-from-TRAIN-0.tar"])
@pytest.mark.parametrize("split", ["train", "val"])
def test_a_shard_whose_name_says_both_splits_is_refused(tmp_path: Path, name: str, split) -> None:
    shard(shard(tmp_path, pairs(["0"])), pairs(["0"]), name)
    assert fits(tmp_path)
    with pytest.raises(UserError, match=f"both train and val: {name}"):
        scan(tmp_path, split)


@pytest.mark.parametrize("ending", ["tar.1", "tar.gz", "tgz", "tar.gz.part", "tar~", "tar-1", "tar (1)"])
def test_a_shard_of_another_ending_is_refused_by_name(tmp_path: Path, ending: str) -> None:
    shard(shard(tmp_path, pairs(["0"])), pairs(["0"]), f"train-000001.{ending}")
    assert f"do not end in .tar: {tmp_path}/train-000001.{ending}." in refusal(tmp_path)


def test_a_shard_that_was_named_is_refused_for_its_ending_too(tmp_path: Path) -> None:
    shard(tmp_path, pairs(["0"]), "images")
    with pytest.raises(UserError, match=rf"do not end in \.tar: {tmp_path}/images\."):
        scan_shards(tmp_path, [tmp_path / "images"], None, None)


@pytest.mark.parametrize("name", ["train-0.tar", "TRAIN-0.TAR"])
def test_an_image_in_a_shard_is_a_member_of_an_archive(tmp_path: Path, name: str) -> None:
    assert scan(shard(tmp_path, pairs(["0"]), name), "train").place(0).is_member


def test_a_missing_shard_is_refused_whatever_the_case_of_its_ending(tmp_path: Path) -> None:
    for name in ("train-0.TAR", "train-2.TAR"):
        shard(tmp_path, pairs(["0"]), name)
    assert "number 1." in refusal(tmp_path)


def test_a_key_in_two_shards_is_refused_with_both(tmp_path: Path) -> None:
    shard(shard(tmp_path, pairs(["0", "1"])), pairs(["1"]), "train-000001.tar")
    message = refusal(tmp_path)
    assert "train-000001.tar" in message
    assert "train-000000.tar both hold the key '0'" in message


@pytest.mark.parametrize("names", [["train-0.tar", "train-2.tar"], ["train-0-of-3.tar", "train-2-of-3.tar"]])
def test_a_missing_shard_is_refused_by_its_number(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        shard(tmp_path, pairs(["0"]), name)
    assert "number 1." in refusal(tmp_path)


def test_a_series_may_have_endings_in_lower_and_upper_case(tmp_path: Path) -> None:
    shard(shard(tmp_path, {"a.jpg": b"", "a.cls": b"0"}, "train-0.tar"), {"b.jpg": b"", "b.cls": b"0"}, "train-1.Tar")
    shard(tmp_path, {"c.jpg": b"", "c.cls": b"0"}, "train-2.TAR")
    assert list(scan(tmp_path, "train").names) == ["0/a.jpg", "0/b.jpg", "0/c.jpg"]
    (tmp_path / "train-1.Tar").unlink()
    assert "number 1." in refusal(tmp_path)


def test_a_missing_last_shard_is_refused_where_the_names_tell_their_number(tmp_path: Path) -> None:
    assert "number 1, 2." in refusal(shard(tmp_path, pairs(["0"]), "train-00000-of-00003.tar"))


def test_shards_without_samples_are_refused(tmp_path: Path) -> None:
    assert "no images" in refusal(shard(tmp_path, {"readme.txt": b""}))


def test_a_list_of_classes_with_a_gap_or_a_repetition_is_refused(tmp_path: Path) -> None:
    write(shard(tmp_path, pairs(["0"])) / "classes.txt", b"a\n\nb\n")
    assert "line 2: the name of a class is missing" in refusal(tmp_path)
    write(tmp_path / "classes.txt", b"a\nb\na\n")
    assert "two classes alike: a" in refusal(tmp_path)


def test_a_byte_order_mark_and_blank_lines_at_the_end_are_no_part_of_a_list_of_classes(tmp_path: Path) -> None:
    names = write(tmp_path / "classes.txt", b"\xef\xbb\xbfb\r\na\r\n\r\n \n")
    assert read_class_names(names) == ["b", "a"]


def test_shards_elsewhere_are_named_by_their_whole_path(tmp_path: Path) -> None:
    shard(tmp_path / "there", pairs(["0"]))
    (tmp_path / "here").mkdir()
    index = scan_shards(tmp_path / "here", [tmp_path / "there" / "train-000000.tar"], None, None)
    assert index.place(0).path == str(tmp_path / "there" / "train-000000.tar")


def test_the_names_of_classes_are_not_compared_with_each_other(tmp_path: Path) -> None:
    names = counted_names(500)
    shard(tmp_path, pairs([str(name) for name in reversed(names)]))
    index = scan_shards(tmp_path, [tmp_path / "train-000000.tar"], names, None)
    assert index.names[0] == "n00000000/499.jpg"
    assert CountedText.comparisons <= 20 * len(names)


def test_a_class_in_another_unicode_form_than_in_the_list_is_spelled(tmp_path: Path) -> None:
    write(shard(tmp_path, pairs(["a", "cafe\u0301"])) / "classes.txt", "a\ncaf\u00e9\n".encode())
    message = refusal(tmp_path)
    assert "'cafe\\u0301' (NFD)" in message
    assert "'caf\\xe9' (NFC)" in message
