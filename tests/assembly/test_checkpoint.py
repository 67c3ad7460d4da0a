"""A network comes back from its checkpoint as it was, with all that it needs."""

import json
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import backbones
from backbones.assembly.checkpoint import restore_model
from backbones.darknet.network import load_cfg
from backbones.darknet.weights import save_weights
from backbones.errors import UserError
from backbones.recipe import Preprocess
from backbones.training.checkpoint import save_checkpoint

ABOUT = {
    "architecture": "test_resnet",
    "cfg": None,
    "model_args": {"drop_rate": 0.1},
    "classes": ["a", "b", "c"],
    "img_size": 48,
    "preprocess": {
        "protocol": "full",
        "crop_pct": 1.0,
        "interpolation": "bicubic",
        "mean": [0.5, 0.4, 0.3],
        "std": [1, 1, 1],
    },
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
    assert restored.preprocess == Preprocess("full", 1.0, "bicubic", (0.5, 0.4, 0.3), (1, 1, 1))
    assert restored.classes == ("a", "b", "c")
    assert (restored.data_dir, restored.val_fingerprint, restored.loader) == ("/data", "abc", "reference")


@pytest.mark.parametrize("recorded", [{"tf32": False}, {}])
def test_the_precision_of_products_is_that_of_the_training_or_unknown(network, tmp_path, recorded):
    save_checkpoint(tmp_path / "last", network.state_dict(), ABOUT | recorded)
    assert restore_model(str(tmp_path)).tf32 is recorded.get("tf32")


@pytest.mark.parametrize(("recorded", "expected"), [({"fold": True}, True), ({"fold": False}, False), ({}, False)])
def test_the_figures_of_an_earlier_version_are_those_of_the_network_unfolded(network, tmp_path, recorded, expected):
    save_checkpoint(tmp_path / "last", network.state_dict(), ABOUT | recorded)
    assert restore_model(str(tmp_path)).fold is expected


def test_weights_of_another_network_under_a_wrong_name_are_refused(network, tmp_path):
    save_checkpoint(tmp_path / "last", network.state_dict(), ABOUT | {"architecture": "test_vit", "model_args": {}})
    with pytest.raises(UserError, match="holds another architecture than test_vit"):
        restore_model(str(tmp_path))


def test_a_bare_file_is_read_with_timms_settings_of_the_named_network(tmp_path):
    network = backbones.create_model("test_resnet")
    save_file(network.state_dict(), tmp_path / "bare.safetensors")
    restored = restore_model(str(tmp_path / "bare.safetensors"), model="test_resnet")
    config: Any = network.pretrained_cfg
    assert restored.img_size == config["input_size"][-1]
    assert restored.preprocess == Preprocess(
        "timm", config["crop_pct"], config["interpolation"], tuple(config["mean"]), tuple(config["std"])
    )
    assert restored.classes is None


def test_the_description_is_plain_json(checkpoint):
    with safe_open(checkpoint / "last" / "model.safetensors", framework="pt") as file:
        assert json.loads(file.metadata()["backbones"])["classes"] == ["a", "b", "c"]


def test_a_checkpoint_from_before_there_were_protocols_keeps_timms(network, tmp_path):
    recorded = {"crop_pct": 0.875, "interpolation": "bilinear", "mean": [0, 0, 0], "std": [1, 1, 1]}
    save_checkpoint(tmp_path / "last", network.state_dict(), ABOUT | {"preprocess": recorded})
    assert restore_model(str(tmp_path)).preprocess == Preprocess("timm", 0.875)


def test_darknets_weights_are_evaluated_by_darknets_protocol(tmp_path):
    layers = "[conv]\nfilters=4\nsize=3\nactivation=leaky\n[avgpool]\n[conv]\nfilters=3\nactivation=linear\n[softmax]\n"
    (tmp_path / "tiny.cfg").write_text(f"[net]\nheight=40\nwidth=40\nchannels=3\n{layers}")
    save_weights(load_cfg(tmp_path / "tiny.cfg"), tmp_path / "tiny.weights")
    restored = restore_model(str(tmp_path / "tiny.weights"), model=str(tmp_path / "tiny.cfg"))
    assert restored.preprocess == Preprocess("darknet", 1.0, "bilinear", (0, 0, 0), (1, 1, 1))
    assert restored.img_size == 40


def test_what_is_overridden_changes_and_the_rest_stays(checkpoint):
    restored = restore_model(str(checkpoint))
    changed = restored.override(img_size=64, protocol="timm", crop_pct=None, interpolation="bilinear")
    assert changed.preprocess == Preprocess("timm", 1.0, "bilinear", (0.5, 0.4, 0.3), (1, 1, 1))
    assert (changed.img_size, changed.model, changed.name) == (64, restored.model, restored.name)


def test_nothing_overridden_is_the_checkpoint_as_it_was_trained(checkpoint):
    restored = restore_model(str(checkpoint))
    same = restored.override(img_size=None, protocol=None, crop_pct=None, interpolation=None)
    assert (same.preprocess, same.img_size) == (restored.preprocess, 48)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"protocol": "darknet"}, "--interpolation='bicubic' needs --protocol=timm or full"),
        ({"crop_pct": 0.875}, "--crop-pct=0.875 must be 1 with --protocol=full"),
        ({"crop_pct": 0.0}, r"--crop-pct=0.0 must lie in \(0, 1\]"),
    ],
)
def test_what_does_not_fit_the_rest_is_refused_in_the_words_of_the_options(checkpoint, asked, message):
    recorded = "has --protocol full --crop-pct 1.0 --interpolation bicubic; the options change that"
    with pytest.raises(UserError, match=f"^{message}[^\n]*\n.*{recorded}"):
        restore_model(str(checkpoint)).override(**({"protocol": None, "crop_pct": None, "interpolation": None} | asked))


def test_a_size_that_the_network_cannot_compute_is_refused(tmp_path):
    network = backbones.create_model("test_vit", num_classes=3)
    save_checkpoint(tmp_path / "last", network.state_dict(), ABOUT | {"architecture": "test_vit", "model_args": {}})
    with pytest.raises(UserError, match=r"--eval-size 50: test_vit does not take such images: .*divisible by"):
        restore_model(str(tmp_path)).override(img_size=50)


def test_a_checkpoint_with_old_names_of_tensors_is_read(tmp_path):
    """Version 0.1 called the shortcut after the last block "fuse"."""
    options: dict[str, Any] = {"depths": [1, 1, 1, 1], "fusion_inputs": "extra", "fusion_weights": "per_feature"}
    options["fusion_normalization"] = "softmax"
    network = backbones.create_model("csresnext50", num_classes=3, **options)
    old = {key.replace(".last_shortcut.", ".fuse."): value for key, value in network.state_dict().items()}
    assert old.keys() != network.state_dict().keys()
    about = ABOUT | {"architecture": "csresnext50", "model_args": options}
    save_checkpoint(tmp_path / "last", old, about)
    restored = restore_model(str(tmp_path)).model.state_dict()
    assert all(torch.equal(value, restored[key]) for key, value in network.state_dict().items())


def test_weights_that_a_network_started_from_are_not_asked_for_again(network, tmp_path):
    arguments = {"pretrained": True, "checkpoint_path": "gone.pth"}
    save_checkpoint(tmp_path / "last", network.state_dict(), ABOUT | {"model_args": arguments})
    assert torch.equal(restore_model(str(tmp_path)).model.fc.weight, network.fc.weight)


def test_the_first_layers_alone_are_no_checkpoint_unless_they_have_all_numbers(tmp_path):
    (tmp_path / "a.cfg").write_text(
        "[net]\nheight=8\nwidth=8\nchannels=3\n[conv]\nfilters=4\n[conv]\nfilters=5\nactivation=linear\n[avgpool]\n[softmax]\n"
    )
    network = load_cfg(tmp_path / "a.cfg").eval()
    for cutoff in (1, 2):
        save_weights(network, tmp_path / f"a.conv.{cutoff}", cutoff=cutoff)
    images = torch.rand(1, 3, 8, 8)
    restored = restore_model(str(tmp_path / "a.conv.2"), model=str(tmp_path / "a.cfg"))
    torch.testing.assert_close(restored.model.eval()(images), network(images))
    with pytest.raises(UserError, match=r"holds the first 1 layers of .*a.cfg and no classifier.* --init-weights"):
        restore_model(str(tmp_path / "a.conv.1"), model=str(tmp_path / "a.cfg"))
