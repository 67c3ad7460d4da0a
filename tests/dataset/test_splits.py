"""Tests of data sets: every layout gives the same images, and doubtful ones are refused."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from backbones.dataset.index import Index, without_ending, write_index
from backbones.dataset.quarantine import write_quarantine
from backbones.dataset.splits import train_and_val, validation
from backbones.errors import UserError
from tests.dataset.make_sources import Images, write, write_folder, write_sources

LAYOUTS = ("folder", "kaggle", "ilsvrc", "webdataset")

LAYOUT_OF: dict[str, Any] = {"kaggle": "kaggle", "ilsvrc": "archives", "webdataset": "shards"}
"""Value of --layout for each."""


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same images in every layout; not to be changed."""
    return write_sources(tmp_path_factory.mktemp("sources"))


@pytest.fixture
def folder(tmp_path: Path, images: Images) -> Path:
    """An image folder that a test may spoil."""
    write_folder(tmp_path / "folder", images)
    return tmp_path / "folder"


def read(index: Index, row: int) -> bytes:
    place = index.place(row)
    return Path(place.path).read_bytes()[place.offset :][: place.length]


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        train_and_val(path)
    return str(caught.value)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_bytes_of_every_image(sources, images: Images, layout: str) -> None:
    for index, files in zip(train_and_val(sources[layout]), images.values(), strict=True):
        found = {without_ending(index.names[row]): read(index, row) for row in range(len(index))}
        assert found == {without_ending(name): content for name, content in files.items()}


@pytest.mark.parametrize("layout", LAYOUTS[1:])
def test_every_layout_gives_the_same_index(sources, layout: str) -> None:
    for ours, theirs in zip(train_and_val(sources[layout]), train_and_val(sources["folder"]), strict=True):
        assert ours.classes == theirs.classes
        assert [without_ending(name) for name in ours.names] == [without_ending(name) for name in theirs.names]
        assert ours.lengths.tolist() == theirs.lengths.tolist()
        assert ours.labels.tolist() == theirs.labels.tolist()
        assert ours.fingerprint == theirs.fingerprint
        assert ours.notes == ()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_validation_alone_needs_no_training_images(tmp_path: Path, sources, layout: str) -> None:
    root = Path(shutil.copytree(sources[layout], tmp_path / layout))
    expected = validation(root).fingerprint
    removed = [path for path in root.rglob("*train*") if path.name != "classes.txt"]
    assert removed
    for path in removed:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert validation(root).fingerprint == expected


def test_a_prepared_index_is_a_layout_too(tmp_path: Path, sources) -> None:
    train, val = train_and_val(sources["ilsvrc"])
    write_index(train, tmp_path / "train.npz")
    write_index(val, tmp_path / "val.npz")
    found, _ = train_and_val(tmp_path)
    assert found.fingerprint == train.fingerprint
    assert read(found, 3) == read(train, 3)


@pytest.mark.parametrize("split", ["train", "val"])
def test_half_of_a_prepared_index_is_refused(tmp_path: Path, sources, split: str) -> None:
    write_index(validation(sources["folder"]), tmp_path / f"{'val' if split == 'train' else 'train'}.npz")
    assert f"no {split}.npz" in refusal(tmp_path)


def test_what_a_killed_prepare_left_is_refused_not_read_as_shards(tmp_path: Path, sources) -> None:
    root = Path(shutil.copytree(sources["webdataset"], tmp_path / "out"))
    write(root / "prepare.json", b"{}")
    assert "was interrupted" in refusal(root)


def test_flat_validation_images_are_refused_as_unlabelled(folder: Path, images: Images) -> None:
    shutil.rmtree(folder / "val")
    for name, content in images["val"].items():
        write(folder / "val" / Path(name).name, content)
    message = refusal(folder)
    assert "unlabelled" in message
    assert "LOC_val_solution.csv" in message


def test_a_missing_data_folder_is_refused(tmp_path: Path) -> None:
    assert "nowhere" in refusal(tmp_path / "nowhere")


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize(("layout", "named"), [("folder", "{}"), ("ilsvrc", "ILSVRC2012_img_{}"), ("webdataset", "{}")])
def test_a_missing_split_is_refused(tmp_path: Path, sources, layout: str, split: str, named: str) -> None:
    root = Path(shutil.copytree(sources[layout], tmp_path / layout))
    for path in root.glob(f"*{split}*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert named.format(split) in refusal(root)


def test_a_folder_with_nothing_known_is_refused_with_what_would_be(tmp_path: Path) -> None:
    message = refusal(write(tmp_path / "x" / "readme.txt", b"").parent)
    for layout in ("train/CLASS/", "CLS-LOC", "ILSVRC2012_img_train.tar", "train-000000.tar", "train.npz"):
        assert layout in message


@pytest.mark.parametrize("other", ["kaggle", "ilsvrc", "webdataset"])
def test_two_layouts_in_one_folder_are_refused(folder: Path, sources, other: str) -> None:
    shutil.copytree(sources[other], folder, dirs_exist_ok=True)
    message = refusal(folder)
    assert "more than one data set" in message
    assert "--layout folders " in message
    assert f"--layout {LAYOUT_OF[other]} " in message


@pytest.mark.parametrize("other", ["kaggle", "ilsvrc", "webdataset"])
def test_one_of_two_layouts_in_one_folder_is_chosen(folder: Path, sources, other: str) -> None:
    for path in (folder / "train").rglob("*.JPEG"):
        path.write_bytes(b"another")
    alone = train_and_val(folder)[0].fingerprint
    shutil.copytree(sources[other], folder, dirs_exist_ok=True)
    theirs = train_and_val(sources[other])[0].fingerprint
    assert alone != theirs
    assert train_and_val(folder, layout="folders")[0].fingerprint == alone
    assert train_and_val(folder, layout=LAYOUT_OF[other])[0].fingerprint == theirs
    assert len(validation(folder, layout=LAYOUT_OF[other])) == 12


@pytest.mark.parametrize(
    ("layout", "named"),
    [
        ("index", "no train.npz"),
        ("archives", "no ILSVRC2012_img_train.tar"),
        ("shards", "no shards of train"),
        ("tiny-imagenet", "val_annotations.txt is missing"),
    ],
)
def test_a_layout_that_is_not_there_is_refused_by_what_is_missing(folder: Path, layout, named: str) -> None:
    with pytest.raises(UserError, match=named):
        train_and_val(folder, layout=layout)


def test_classes_one_level_too_deep_are_refused_with_the_command(folder: Path) -> None:
    for split in ("train", "val"):
        (folder / split).rename(folder / "images")
        (folder / split).mkdir()
        (folder / "images").rename(folder / split / "images")
    message = refusal(folder)
    assert "is the only class" in message
    assert f"`mv {folder}/train/images/* {folder}/train`" in message


def test_archives_of_classes_in_the_training_folder_are_named(folder: Path) -> None:
    shutil.rmtree(folder / "train")
    write(folder / "train" / "n01440764.tar", b"")
    assert "It has n01440764.tar: unpack each" in refusal(folder)


def test_classes_that_differ_are_named_with_their_split(folder: Path) -> None:
    write(folder / "train" / "ant" / "1.jpg", b"x")
    write(folder / "val" / "bee" / "1.jpg", b"x")
    message = refusal(folder)
    assert f"only for training in {folder / 'train'}: ant;" in message
    assert f"only for validation in {folder / 'val'}: bee." in message


def test_a_folder_that_cannot_be_listed_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: str):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("os.scandir", fail)
    assert f"{folder / 'val'} cannot be read: Permission denied" in refusal(folder)


def test_quarantined_training_images_are_left_out(folder: Path, images: Images) -> None:
    bad = "n02094433/n02094433_17.JPEG"
    write_quarantine(folder, {"train": {bad: "truncated"}})
    train, _ = train_and_val(folder)
    assert list(train.names) == sorted(images["train"].keys() - {bad})
    assert train.notes == ("1 images of quarantine.tsv are left out",)
    assert len(train_and_val(folder, obey_quarantine=False)[0]) == len(images["train"])


def test_a_quarantined_validation_image_is_refused(folder: Path) -> None:
    write_quarantine(folder, {"val": {"n02129604/ILSVRC2012_val_00000001.JPEG": "empty"}})
    for call in (train_and_val, validation):
        with pytest.raises(UserError, match=r"validation images: n02129604/ILSVRC2012_val_00000001\.JPEG"):
            call(folder)
    assert len(validation(folder, obey_quarantine=False)) == 12


def test_classes_that_differ_only_in_their_unicode_form_are_spelled(folder: Path) -> None:
    write(folder / "train" / "caf\u00e9" / "1.jpg", b"x")
    write(folder / "val" / "cafe\u0301" / "1.jpg", b"x")
    message = refusal(folder)
    assert "'cafe\\u0301' (NFD) and 'caf\\xe9' (NFC)" in message
    assert "convmv" in message
