"""Findings hold what the surveys found, and their JSON has the same keys as ever."""

import shutil
from pathlib import Path

import pytest

from backbones.dataset.splits import train_and_val
from backbones.dataset.verification.findings import BadImage, Findings, Remarked, collect
from backbones.dataset.verification.survey import survey


@pytest.fixture
def findings(image_folder: Path, tmp_path: Path) -> Findings:
    """Findings about 64 training and 20 validation images: one is empty, one has trailing bytes, one is in both."""
    data = shutil.copytree(image_folder, tmp_path / "data")
    (data / "train/cow/003.jpg").write_bytes(b"")
    with (data / "train/ant/002.jpg").open("ab") as opened:
        opened.write(b"garbage")
    shutil.copy(data / "train/ant/001.jpg", data / "val/ant/leak.jpg")
    train, val = train_and_val(data)
    return collect(survey({"train": train, "val": val}), seconds=2.0, workers=3)


def test_every_kind_of_finding_is_there(findings: Findings, tmp_path: Path) -> None:
    train, val = findings.splits["train"], findings.splits["val"]
    assert not findings.good
    assert train.bad == {"cow/003.jpg": BadImage(str(tmp_path / "data/train/cow/003.jpg"), "it is empty")}
    assert train.remarks == {"trailing bytes": Remarked(1, ["ant/002.jpg"])}
    assert (train.kinds, val.kinds) == ({"JPEG RGB": 63}, {"JPEG RGB": 21})
    assert (train.shorter_side, train.longer_side) == ([36, 36, 36], [44, 44, 44])
    assert findings.duplicates["in train and val"] == [["train/ant/001.jpg", "val/ant/leak.jpg"]]
    assert (findings.seconds, findings.workers, findings.images_per_second) == (2, 3, 42.5)


def test_json_keeps_its_keys(findings: Findings) -> None:
    content = findings.to_dict()
    assert set(content) == {
        "good", "splits", "duplicates", "counts", "notes", "seconds", "workers", "images_per_second"
    }  # fmt: skip
    assert set(content["splits"]["val"]) == {
        "images", "classes", "bad", "kinds", "remarks", "bytes", "shorter side", "longer side"
    }  # fmt: skip
    assert content["splits"]["train"]["bad"]["cow/003.jpg"]["reason"] == "it is empty"
    assert content["splits"]["val"]["shorter side"] == [36, 36, 36]


def test_a_split_without_a_usable_image_has_no_spread(tmp_path: Path) -> None:
    for split in ("train", "val"):
        (tmp_path / split / "a").mkdir(parents=True)
        (tmp_path / split / "a" / "1.jpg").write_bytes(b"")
    train, val = train_and_val(tmp_path)
    assert collect(survey({"train": train, "val": val}), seconds=1).splits["val"].shorter_side == []
