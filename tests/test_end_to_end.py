"""From each layout of a data set to a trained and evaluated network: prepare, train, eval, with the same result."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

import eval as evaluation_script
from backbones.commands import prepare
from backbones.dataset.splits import train_and_val
from tests import accelerate_state
from tests.dataset.make_sources import write_sources
from train_imagenet import main

pytestmark = pytest.mark.usefixtures("fresh_accelerate")
OPTIONS = ["--model", "test_resnet", "--img-size", "32", "--batch-size", "8", "--epochs", "2", "--workers", "1"]
OPTIONS += ["--bn-momentum", "0.1", "--device", "cpu"]
SOURCES = ("folder", "kaggle", "ilsvrc", "webdataset")


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_sources(tmp_path_factory.mktemp("sources"))


def prepared(source: Path, out: Path) -> Path:
    prepare.main([str(source), "--out", str(out), "--workers", "1"])
    return out


def trained(data: Path, run: Path):
    """Train and evaluate; return the figures of both and the weights."""
    accelerate_state.reset()
    training = main([*OPTIONS, "--data-dir", str(data), "--output", str(run)])
    accelerate_state.reset()
    evaluation = evaluation_script.main(["--ckpt", str(run), "--data-dir", str(data)])
    return training, evaluation, load_file(run / "last" / "model.safetensors")


def test_every_layout_gives_the_same_index_weights_and_top1(sources: dict[str, Path], tmp_path: Path) -> None:
    runs = {}
    for name in SOURCES:
        index = prepared(sources[name], tmp_path / name / "index")
        runs[name] = (train_and_val(index), *trained(index, tmp_path / name / "run"))
    (train, val), training, evaluation, weights = runs["folder"]
    assert training == evaluation
    assert (len(train), evaluation.n) == (24, 12)
    for (other_train, other_val), *figures, other_weights in runs.values():
        assert figures == [training, evaluation]
        assert (other_train.fingerprint, other_val.fingerprint) == (train.fingerprint, val.fingerprint)
        for ours, theirs in ((train, other_train), (val, other_val)):
            assert ours.classes == theirs.classes
            np.testing.assert_array_equal(ours.labels, theirs.labels)
            np.testing.assert_array_equal(ours.lengths, theirs.lengths)
        assert all(value.equal(other_weights[key]) for key, value in weights.items())


@pytest.mark.parametrize("name", SOURCES)
def test_a_layout_trains_as_it_is_without_being_prepared(sources: dict[str, Path], tmp_path: Path, name: str) -> None:
    accelerate_state.reset()
    run = tmp_path / "run"
    words = [*OPTIONS, "--epochs", "1", "--data-dir", str(sources[name]), "--output", str(run)]
    assert main(words).n == 12


def test_a_shrunk_data_set_trains_too(sources: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "small"
    prepare.main([str(sources["ilsvrc"]), "--out", str(out), "--workers", "1", "--resize", "40"])
    training, evaluation, _ = trained(out, tmp_path / "run")
    assert training == evaluation
    assert evaluation.n == 12
