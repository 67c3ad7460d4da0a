"""A network comes back from its checkpoint as it was, with all that it needs."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import backbones
from backbones.commands.restored import restore_model
from backbones.errors import UserError
from backbones.recipe import Preprocess
from backbones.training.checkpoint import save_checkpoint

ABOUT = {
    "architecture": "test_resnet",
    "cfg": None,
    "model_args": {"drop_rate": 0.1},
    "classes": ["a", "b", "c"],
    "img_size": 48,
    "preprocess": {"crop_pct": 0.9, "interpolation": "bicubic", "mean": [0.5, 0.4, 0.3], "std": [1, 1, 1]},
    "channels_last": False,
    "loader": "reference",
    "val_fingerprint": "abc",
    "precision": "bf16",
    "data_dir": "/data",
}


@pytest.fixture
def network():
    torch.manual_seed(0)
    return backbones.create_model("test_resnet", num_classes=3)


@pytest.fixture
def checkpoint(network, tmp_path):
    save_checkpoint(tmp_path / "last", network.state_dict(), ABOUT)
    return tmp_path


def test_everything_that_the_file_says_comes_back(network, checkpoint):
    restored = restore_model(str(checkpoint))
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(restored.model.eval()(images), network.eval()(images))
    assert restored.model.drop_rate == 0.1
    assert (restored.name, restored.img_size, restored.precision) == ("test_resnet", 48, "bf16")
    assert restored.preprocess == Preprocess(0.9, "bicubic", (0.5, 0.4, 0.3), (1, 1, 1))
    assert restored.classes == ("a", "b", "c")
    assert (restored.data_dir, restored.val_fingerprint, restored.loader) == ("/data", "abc", "reference")


def test_weights_of_another_network_under_a_wrong_name_are_refused(network, tmp_path):
    save_checkpoint(tmp_path / "last", network.state_dict(), ABOUT | {"architecture": "test_vit", "model_args": {}})
    with pytest.raises(UserError, match="holds another architecture than test_vit"):
        restore_model(str(tmp_path))


def test_a_bare_file_is_read_with_timms_settings_of_the_named_network(tmp_path):
    network = backbones.create_model("test_resnet")
    save_file(network.state_dict(), tmp_path / "bare.safetensors")
    restored = restore_model(str(tmp_path / "bare.safetensors"), model="test_resnet")
    config = network.pretrained_cfg
    assert restored.img_size == config["input_size"][-1]
    assert restored.preprocess.mean == tuple(config["mean"])
    assert restored.classes is None


def test_the_description_is_plain_json(checkpoint):
    with safe_open(checkpoint / "last" / "model.safetensors", framework="pt") as file:
        assert json.loads(file.metadata()["backbones"])["classes"] == ["a", "b", "c"]
