"""The preflight sees classes that differ, images that come twice or never, and files that do not decode."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from backbones.assembly.preflight import data
from backbones.assembly.preflight.data import check_classes, check_largest, check_shards, count_training_images
from backbones.data.order import Shares, validation_plans
from backbones.dataset.sources.folder import scan_folder
from backbones.recipe import Recipe

RECIPE = Recipe(batch_size=16)


@pytest.fixture
def indexes(image_folder):
    return scan_folder(image_folder / "train"), scan_folder(image_folder / "val")


def test_equal_classes_pass(indexes):
    (row,) = check_classes(*indexes)
    assert row.passed
    assert row.found == "64 training and 20 validation images in 4 classes, in the same order: ant is 0, dog is 3"


def test_other_classes_and_empty_ones_fail_by_name(indexes):
    train, val = indexes
    (row,) = check_classes(train, replace(val, classes=("ant", "bee", "cat", "dog")))
    assert (row.passed, "train has cow where val has cat" in row.found) == (False, True)
    (row,) = check_classes(replace(train, labels=np.where(train.labels == 1, 0, train.labels)), val)
    assert (row.passed, "no training image of bee" in row.found) == (False, True)


@pytest.mark.parametrize(("processes", "steps"), [(1, 1), (2, 2), (8, 1)])
def test_every_training_image_comes_once_but_for_the_tail(processes, steps):
    counts = count_training_images(Recipe(batch_size=16, grad_accum_steps=steps), 70, processes)
    assert np.bincount(counts).tolist() == [6, 64]


def test_shards_that_overlap_fail(indexes, monkeypatch):
    """Every process takes the images of the first one."""
    train, val = indexes
    rows = list(check_shards(RECIPE, train, val, 2))
    assert [row.passed for row in rows] == [True, True]
    assert rows[0].found == "each image once over 2 processes; 0 are left out of an epoch, others each time"
    monkeypatch.setattr(data, "Shares", lambda batch, steps, _rank, world: Shares(batch, steps, 0, world))
    monkeypatch.setattr(data, "validation_plans", lambda size, batch, **_: validation_plans(size, batch, world_size=2))
    rows = list(check_shards(RECIPE, train, val, 2))
    assert [(row.passed, row.found) for row in rows] == [
        (False, "images come 0 to 2 times"),
        (False, "20 images not exactly once"),
    ]


def test_the_largest_files_are_decoded(image_folder, tmp_path):
    folder = shutil.copytree(image_folder, tmp_path / "data")
    train, val = scan_folder(folder / "train"), scan_folder(folder / "val")
    assert [(row.check, row.passed) for row in check_largest(train, val)] == [
        ("largest train", True),
        ("largest val", True),
    ]
    (folder / "val" / "bee" / "001.jpg").write_bytes(b"<html>" * 2000)
    rows = list(check_largest(train, scan_folder(folder / "val")))
    assert [row.passed for row in rows] == [True, False]
    assert "val/bee/001.jpg cannot be decoded" in rows[1].found
