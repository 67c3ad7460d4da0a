"""Tests of the digits: the fixed split, the same bytes every time, and no harm to other folders."""

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from backbones.dataset.digits import split, write_digits
from backbones.dataset.splits import train_and_val
from backbones.errors import UserError

load_digits = pytest.importorskip("sklearn.datasets").load_digits


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_digits(tmp_path_factory.mktemp("data") / "deep" / "digits")


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*.jpg")}


def test_the_split_has_the_published_sizes_and_every_digit_in_proportion(digits: Path) -> None:
    train, val = train_and_val(digits)
    assert train.classes == tuple("0123456789")
    assert (len(train), len(val)) == (1437, 360)
    total = np.bincount(load_digits().target)
    np.testing.assert_array_equal(np.bincount(train.labels) + np.bincount(val.labels), total)
    assert np.abs(np.bincount(val.labels) - total / 5).max() < 1


def test_no_image_is_in_both_splits() -> None:
    rows = split(load_digits().target)
    assert sorted([*rows["train"], *rows["val"]]) == list(range(1797))


def test_a_file_shows_its_digit(digits: Path) -> None:
    data = load_digits()
    path = next((digits / "val" / "7").iterdir())
    with Image.open(path) as image:
        assert (image.size, image.mode, image.format) == ((32, 32), "RGB", "JPEG")
        pixels = np.asarray(image.convert("L").resize((8, 8), Image.Resampling.BOX)) / 255
    original = data.images[int(path.stem)] / 16
    assert data.target[int(path.stem)] == 7
    assert np.corrcoef(pixels.ravel(), original.ravel())[0, 1] > 0.98


def test_writing_twice_gives_the_same_bytes(digits: Path, tmp_path: Path) -> None:
    assert contents(write_digits(tmp_path / "again")) == contents(digits)
    assert [path.name for path in tmp_path.iterdir()] == ["again"]


def test_a_complete_folder_is_left_alone_and_an_incomplete_one_is_rebuilt(digits: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(digits, tmp_path / "digits")
    path = next((copy / "train" / "3").iterdir())
    whole = path.read_bytes()
    path.write_bytes(b"touched")
    write_digits(copy)
    assert path.read_bytes() == b"touched"
    path.unlink()
    write_digits(copy)
    assert path.read_bytes() == whole


@pytest.mark.parametrize("name", ["thesis.txt", "train/cat/1.jpg", "train/3/photo.jpg"])
def test_a_folder_with_anything_else_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).touch()
    with pytest.raises(UserError, match="holds files other than digits"):
        write_digits(tmp_path)
    assert (tmp_path / name).exists()


def test_a_missing_scikit_learn_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(UserError, match="scikit-learn"):
        write_digits(tmp_path / "digits")
    assert list(tmp_path.iterdir()) == []
