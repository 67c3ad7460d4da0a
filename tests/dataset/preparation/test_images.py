"""A request names a part of a data set, or its shards."""

from pathlib import Path

import numpy as np
import pytest

from backbones.dataset.preparation.images import read_images
from backbones.dataset.preparation.request import Request
from backbones.dataset.splits import train_and_val
from backbones.errors import UserError
from tests.dataset.make_sources import write_sources


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_sources(tmp_path_factory.mktemp("sources"))


def test_the_whole_data_set_is_the_default(sources) -> None:
    read = read_images(Request(str(sources["folder"]), "out"))
    assert [index.fingerprint for index in read] == [i.fingerprint for i in train_and_val(sources["folder"])]


def test_few_classes_and_few_training_images_are_drawn_and_no_validation_image_is_left_out(sources) -> None:
    train, val = read_images(Request(str(sources["folder"]), "out", classes=2, per_class=3))
    whole = train_and_val(sources["folder"])[1]
    assert np.bincount(train.labels).tolist() == [3, 3]
    assert list(val.names) == [name for name in whole.names if name.split("/")[0] in train.classes]


def test_class_names_without_shards_are_refused(sources) -> None:
    with pytest.raises(UserError, match="--class-names is for shards"):
        read_images(Request(str(sources["folder"]), "out", class_names="imagenet"))
