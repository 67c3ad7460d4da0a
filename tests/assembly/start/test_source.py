"""Weights of every kind are read as tensors by name, and none of them runs code."""

import argparse
import zipfile
from hashlib import sha256

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

import backbones
from backbones.assembly.start.source import find_source, read_pretrained, read_source
from backbones.darknet.labels import class_order, synsets
from backbones.darknet.network import load_cfg
from backbones.darknet.weights import save_weights
from backbones.errors import UserError
from backbones.training.checkpoint import save_checkpoint
from tests.assembly.test_checkpoint import ABOUT
from tests.darknet.tiny_cfg import write_tiny_cfg


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return backbones.create_model("test_resnet", num_classes=3)


@pytest.fixture
def tiny(tmp_path):
    """The function that builds the tiny cfg: tiny(classes)."""
    return lambda classes: load_cfg(write_tiny_cfg(tmp_path / "tiny.cfg", classes=classes))


def equal(a, b) -> bool:
    return a.keys() == b.keys() and all(torch.equal(value, b[name]) for name, value in a.items())


def test_a_run_folder_gives_the_average_of_its_last_checkpoint_with_its_classes(network, tmp_path):
    average = {name: value + 1 for name, value in network.state_dict().items()}
    save_checkpoint(tmp_path / "last", network.state_dict(), ABOUT, ema=average)
    file = find_source(str(tmp_path))
    source = read_source(file, network)
    assert file == tmp_path / "last" / "ema.safetensors"
    assert equal(source.weights, average)
    assert source.sha256 == sha256(file.read_bytes()).hexdigest()
    assert (source.classes, source.architecture) == (("a", "b", "c"), "test_resnet")
    assert source.normalization == ((0.5, 0.4, 0.3), (1, 1, 1))


def test_a_damaged_checkpoint_is_refused(network, tmp_path):
    save_checkpoint(tmp_path / "last", network.state_dict(), ABOUT)
    file = tmp_path / "last" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\0")
    with pytest.raises(UserError, match=r"last is damaged: model.safetensors has other content"):
        find_source(str(tmp_path))


@pytest.mark.parametrize("key", [None, "state_dict", "model", "state_dict_ema", "model_ema"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "_orig_mod.module.", "module._orig_mod."])
def test_a_file_of_timm_or_torchvision_is_read_as_timm_reads_it(network, tmp_path, key, prefix):
    """Training wraps the state in a dictionary, and DDP and torch.compile put prefixes before the names."""
    state = {prefix + name: value for name, value in network.state_dict().items()}
    others = {"epoch": 3, "args": argparse.Namespace(lr=0.1), "optimizer": {"state": {}}}
    if key and key.endswith("ema"):
        others["state_dict"] = {name: value * 0 for name, value in state.items()}
    torch.save(state if key is None else {**others, key: state}, tmp_path / "a.pth")
    source = read_source(find_source(str(tmp_path / "a.pth")), network)
    assert equal(source.weights, network.state_dict())
    assert source.classes is None


def test_a_bare_safetensors_file_names_no_classes(network, tmp_path):
    save_file({f"module.{name}": value for name, value in network.state_dict().items()}, tmp_path / "a.safetensors")
    source = read_source(find_source(str(tmp_path / "a.safetensors")), network)
    assert equal(source.weights, network.state_dict())
    assert (source.classes, source.architecture, source.normalization) == (None, None, None)


class Exploit:
    def __reduce__(self):
        return print, ("the file ran code",)


def test_a_file_that_would_run_code_is_refused(network, tmp_path, capsys):
    torch.save({"state_dict": network.state_dict(), "hook": Exploit()}, tmp_path / "a.pth")
    with pytest.raises(UserError, match=r"a.pth cannot be read as weights alone: weights_only=True blocked"):
        read_source(tmp_path / "a.pth", network)
    assert "ran code" not in capsys.readouterr().out


@pytest.mark.parametrize("content", [b"", b"<html>", b"PK\x03\x04 not a zip", b"\x80\x02}q\x00."])
def test_a_file_that_is_none_is_refused(network, tmp_path, content):
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(UserError, match=r"a.pth (cannot be read as weights alone|holds no state dict)"):
        read_source(tmp_path / "a.pth", network)


def test_a_file_that_would_unpack_to_more_than_it_has_is_refused(network, tmp_path):
    with zipfile.ZipFile(tmp_path / "a.pth", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("archive/data.pkl", b"\0" * 10**6)
    with pytest.raises(UserError, match="unpack to more bytes than it has"):
        read_source(tmp_path / "a.pth", network)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"epoch": 3, "net": {"a": torch.zeros(1)}}, "epoch is no tensor"),
        ({}, "it is empty"),
        ([torch.zeros(1)], "cannot be read"),
    ],
)
def test_a_file_without_a_state_dict_is_refused(network, tmp_path, state, message):
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(UserError, match=message):
        read_source(tmp_path / "a.pth", network)


@pytest.mark.parametrize(
    ("name", "message"),
    [("none.pth", "there is no .*none.pth"), ("a.npz", r"a.npz ends in none of .safetensors, .pth")],
)
def test_what_is_not_there_and_what_is_not_known_are_named(tmp_path, name, message):
    (tmp_path / "a.npz").touch()
    with pytest.raises(UserError, match=message):
        find_source(str(tmp_path / name))


def test_darknets_weights_have_the_names_of_the_network_and_may_have_other_classes(tiny, tmp_path):
    other = tiny(1000)
    other.layers[4].conv.bias.data = torch.arange(1000.0)
    save_weights(other, tmp_path / "a.weights", "sorted")
    source = read_source(find_source(str(tmp_path / "a.weights")), tiny(10))
    expected = {name: value for name, value in other.state_dict().items() if "num_batches" not in name}
    expected["layers.4.conv.bias"] = torch.arange(1000.0)[class_order().argsort()]
    expected["layers.4.conv.weight"] = expected["layers.4.conv.weight"][class_order().argsort()]
    assert equal(source.weights, expected)
    assert source.classes == synsets()


def test_a_partial_file_has_the_layers_that_its_name_tells(tiny, tmp_path):
    network = tiny(7)
    save_weights(network, tmp_path / "tiny.conv.2", cutoff=2)
    source = read_source(find_source(str(tmp_path / "tiny.conv.2")), tiny(10))
    names = {name for name in network.state_dict() if name.startswith(("layers.0.", "layers.1."))}
    assert source.weights.keys() == {name for name in names if "num_batches" not in name}
    assert (source.layers, source.classes) == (2, None)


def test_a_partial_file_of_another_name_must_be_asked_for(tiny, tmp_path):
    network = tiny(7)
    save_weights(network, tmp_path / "a.weights", cutoff=2)
    with pytest.raises(UserError, match=r"ends after layer 1. .* --init-partial takes it, .* a.conv.2"):
        read_source(tmp_path / "a.weights", network)
    assert read_source(tmp_path / "a.weights", network, may_end_early=True).layers == 2


def test_a_whole_file_is_whole_where_a_part_would_do(tiny, tmp_path):
    save_weights(tiny(7), tmp_path / "a.weights")
    assert read_source(tmp_path / "a.weights", tiny(7), may_end_early=True).layers is None


def test_darknets_weights_of_another_network_are_refused(tiny, tmp_path):
    save_weights(tiny(7), tmp_path / "a.weights")
    with pytest.raises(UserError, match="bytes, but this network needs exactly"):
        read_source(tmp_path / "a.weights", backbones.create_model("csdarknet53", depths=[1] * 5, num_classes=2))


@pytest.fixture
def hub(monkeypatch):
    """The state dict of `test_resnet` that the hub gives."""
    torch.manual_seed(3)
    state = timm.create_model("test_resnet").state_dict()
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", lambda *_, **__: dict(state))
    return state


def test_published_weights_come_with_the_classes_of_imagenet(hub):
    before = torch.random.get_rng_state()
    source = read_pretrained("test_resnet", {"drop_rate": 0.1, "pretrained": False})
    assert equal(source.weights, hub)
    assert source.classes == synsets()
    assert source.normalization == ((0.5,) * 3, (0.5,) * 3)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert read_pretrained("test_resnet", {}).sha256 == source.sha256


def test_timm_adapts_the_stem_of_published_weights(hub):
    source = read_pretrained("test_resnet", {"in_chans": 1})
    assert torch.equal(source.weights["conv1.0.weight"], hub["conv1.0.weight"].sum(1, keepdim=True))


def test_weights_that_nobody_publishes_are_named(monkeypatch):
    with pytest.raises(UserError, match="the weights of csresnext50 cannot be had: No pretrained weights exist"):
        read_pretrained("csresnext50", {})
    with pytest.raises(UserError, match=r"timm has no weights of a.cfg. Name darknet's file: --init-weights"):
        read_pretrained("a.cfg", {})

    def fail(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", fail)
    with pytest.raises(UserError, match="--pretrained: the weights of test_resnet cannot be had: no network"):
        read_pretrained("test_resnet", {})


def test_old_names_of_tensors_are_translated(tmp_path):
    options = {"depths": [1, 1, 1, 1], "fusion_inputs": "extra", "fusion_weights": "per_feature"}
    network = backbones.create_model("csresnext50", num_classes=3, **options)
    old = {name.replace(".last_shortcut.", ".fuse."): value for name, value in network.state_dict().items()}
    assert old.keys() != network.state_dict().keys()
    save_file(old, tmp_path / "a.safetensors")
    assert equal(read_source(tmp_path / "a.safetensors", network).weights, network.state_dict())
