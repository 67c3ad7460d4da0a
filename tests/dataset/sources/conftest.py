"""The same small data set in every layout, to read and to spoil."""

from pathlib import Path

import pytest

from tests.dataset.make_sources import Images, write_ilsvrc, write_kaggle, write_webdataset


@pytest.fixture
def kaggle(tmp_path: Path, images: Images) -> Path:
    """Kaggle's layout, which a test may spoil."""
    write_kaggle(tmp_path / "kaggle", images)
    return tmp_path / "kaggle"


@pytest.fixture
def ilsvrc(tmp_path: Path, images: Images) -> Path:
    """The official archives, which a test may spoil."""
    write_ilsvrc(tmp_path / "ilsvrc", images)
    return tmp_path / "ilsvrc"


@pytest.fixture
def webdataset(tmp_path: Path, images: Images) -> Path:
    """Shards, which a test may spoil."""
    write_webdataset(tmp_path / "webdataset", images)
    return tmp_path / "webdataset"
