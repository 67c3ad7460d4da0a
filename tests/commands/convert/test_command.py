"""Darknet's files into ours and back, through the command line."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

import backbones
from backbones.__main__ import main
from backbones.assembly.checkpoint import restore_model
from backbones.command_line import parse
from backbones.commands.convert import command as convert
from backbones.darknet.cfg import read_cfg
from backbones.darknet.labels import class_order, synsets
from backbones.darknet.network import load_cfg
from backbones.darknet.weights import WeightsHeader, save_weights
from backbones.errors import UserError
from backbones.recipe import Recipe
from backbones.training.checkpoint import save_checkpoint
from tests.assembly.test_checkpoint import ABOUT
from tests.darknet.recordings import Recording
from tests.darknet.tiny_cfg import NET, write_tiny_cfg

FIXTURES = Path(__file__).parents[1] / "fixtures" / "darknet"


@pytest.fixture
def cfg(tmp_path):
    def write(classes: int = 1000, net: str = NET, shortcut: str = "") -> Path:
        return write_tiny_cfg(tmp_path / "tiny.cfg", classes=classes, net=net, shortcut=shortcut)

    return write


@pytest.fixture
def weights(cfg, tmp_path) -> Path:
    """A file with 1000 classes in darknet's order, whose biases count them."""
    network = load_cfg(cfg())
    torch.nn.init.constant_(network.layers[2].weight, 0.7)
    network.layers[4].conv.bias.data = torch.arange(1000.0)
    save_weights(network, tmp_path / "a.weights", "sorted", header=WeightsHeader(seen=64_000))
    return tmp_path / "a.weights"


def description(file: Path) -> dict:
    with safe_open(file, framework="pt") as tensors:
        return json.loads(tensors.metadata()["backbones"])


def test_weights_become_a_checkpoint_in_sorted_order_that_names_its_classes(weights, tmp_path, capsys):
    out = tmp_path / "b.safetensors"
    main(["convert", str(weights), "--model", str(tmp_path / "tiny.cfg"), "--out", str(out), "--verify"])
    assert load_file(out)["layers.4.conv.bias"][class_order()].equal(torch.arange(1000.0))
    about = description(out)
    assert about["classes"] == list(synsets()) == sorted(about["classes"])
    assert about["architecture"] == str(tmp_path / "tiny.cfg")
    assert (about["img_size"], about["preprocess"]["mean"], about["darknet"]["seen"]) == (32, [0, 0, 0], 64_000)
    assert "verified" in capsys.readouterr().out


def test_a_checkpoint_becomes_the_weights_it_was_made_from(weights, tmp_path):
    main(["convert", str(weights), "--model", str(tmp_path / "tiny.cfg"), "--out", str(tmp_path / "b.safetensors")])
    main(["convert", str(tmp_path / "b.safetensors"), "--out", str(tmp_path / "c.weights"), "--verify"])
    assert (tmp_path / "c.weights").read_bytes() == weights.read_bytes()


def test_verify_notices_another_file(weights, tmp_path, monkeypatch):
    """A writer that spoils one number is found out."""
    write = convert.write_weights

    def spoil(file, values, about):
        write(file, {**values, "layers.0.bn.bias": values["layers.0.bn.bias"] + 1}, about)

    monkeypatch.setattr(convert, "write_weights", spoil)
    words = [str(weights), "--model", str(tmp_path / "tiny.cfg"), "--out", str(tmp_path / "b.safetensors")]
    with pytest.raises(UserError, match=r"--verify: .*(other logits|cannot be written again)"):
        main(["convert", *words, "--verify"])


def test_other_classes_need_their_names(cfg, tmp_path):
    file = cfg(classes=3)
    save_weights(load_cfg(file), tmp_path / "a.weights")
    words = ["convert", str(tmp_path / "a.weights"), "--model", str(file), "--out", str(tmp_path / "b.safetensors")]
    with pytest.raises(UserError, match="3 classes without known names: add --labels FILE"):
        main(words)
    (tmp_path / "names").write_text("ant\nbee\n")
    with pytest.raises(UserError, match=r"has 2 names, but .* has 3 classes"):
        main([*words, "--labels", str(tmp_path / "names")])
    (tmp_path / "names").write_text("ant\nbee\ncow\n")
    main([*words, "--labels", str(tmp_path / "names"), "--verify"])
    assert description(tmp_path / "b.safetensors")["classes"] == ["ant", "bee", "cow"]


def test_a_backbones_name_becomes_its_cfg(tmp_path):
    main(["convert", "csresnext50-ws", "--out", str(tmp_path / "a.cfg")])
    assert len(read_cfg(tmp_path / "a.cfg").layers) == 84


def test_the_net_section_becomes_a_recipe(tmp_path, cfg, capsys):
    file, out = cfg(), tmp_path / "r.yaml"
    main(["convert", str(file), "--recipe"])
    printed = capsys.readouterr().out
    main(["convert", str(file), "--recipe", "--out", str(out)])
    assert printed == out.read_text()
    recipe = parse(Recipe, [], config=out)
    assert (recipe.model, recipe.batch_size, recipe.grad_accum_steps) == (str(file), 64, 4)
    assert (recipe.lr, recipe.steps, recipe.img_size, recipe.optim.burn_in) == (0.05, 500, 32, 20)
    assert (recipe.mixing.mosaic, recipe.mixing.prob) == (False, 0.0)
    ours = recipe.augment.darknet
    assert (recipe.augment.augmentation, ours.hue, ours.aspect) == ("darknet", 0.1, 1.0)
    assert (ours.min_crop, ours.max_crop) == (32, 64)  # darknet's defaults: once and twice the network's size


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a.weights"], "--out is missing"),
        (["a.weights", "--out", "b.yaml"], r"convert a.weights to b.yaml: a .weights becomes a .safetensors"),
        (["a.weights", "--model", "csresnext50", "--out", "b.safetensors"], "there is no weights file a.weights"),
        (["a.weights", "--out", "b.safetensors"], "a.weights does not say what network it holds: add --model"),
        (["a.cfg", "--recipe"], "there is no cfg a.cfg"),
        (["csresnext50", "--out", "no/dir/x.cfg"], "--out no/dir/x.cfg: there is no folder no/dir"),
        (["a.weights", "--out", "b.safetensors", "--labels", "none.txt"], "--labels none.txt: there is no such file"),
    ],
)
def test_what_cannot_be_converted_is_refused(words, message):
    with pytest.raises(UserError, match=message):
        main(["convert", *words])


def test_weights_of_another_network_are_refused_and_nothing_is_written(weights, tmp_path):
    out = tmp_path / "b.safetensors"
    with pytest.raises(UserError, match="bytes, but this network needs exactly"):
        main(["convert", str(weights), "--model", "csdarknet53", "--out", str(out)])
    weights.write_bytes(
        weights.read_bytes()[:20] + np.full((weights.stat().st_size - 20) // 4, np.nan, "<f4").tobytes()
    )
    with pytest.raises(UserError, match="not finite"):
        main(["convert", str(weights), "--model", str(tmp_path / "tiny.cfg"), "--out", str(out)])
    assert not out.exists()


def test_weights_named_as_in_timms_folders_get_its_config(weights, tmp_path):
    network = backbones.create_model("test_resnet", num_classes=3)
    save_checkpoint(tmp_path / "last", network.state_dict(), ABOUT | {"model_args": {}})
    restored = restore_model(str(tmp_path / "last"))
    convert.write_timm_config(tmp_path / "b.safetensors", restored, ["a", "b", "c"])
    assert not (tmp_path / "config.json").exists()
    convert.write_timm_config(tmp_path / "model.safetensors", restored, ["a", "b", "c"])
    assert json.loads((tmp_path / "config.json").read_text())["architecture"] == "test_resnet"
    (tmp_path / "config.json").unlink()
    words = ["convert", str(weights), "--model", str(tmp_path / "tiny.cfg")]
    main([*words, "--out", str(tmp_path / "model.safetensors")])  # timm cannot build a cfg
    assert not (tmp_path / "config.json").exists()


@pytest.fixture
def darknet_files(tmp_path):
    """Write the cfg and the weights of a recording, and return (cfg, weights, bytes that darknet partial made)."""
    recorded = Recording("weights_alexeyab")
    (tmp_path / "n.cfg").write_text(recorded.meta["cfg"])
    (tmp_path / "n.weights").write_bytes(recorded["file/full"].numpy().tobytes())
    partial = {cutoff: recorded[f"file/partial_{cutoff}"].numpy().tobytes() for cutoff in (2, 4, 6)}
    return tmp_path / "n.cfg", tmp_path / "n.weights", partial


def test_first_layers_of_weights_are_those_of_darknet_partial(darknet_files, tmp_path, capsys):
    cfg, weights, partial = darknet_files
    for cutoff, expected in partial.items():
        out = tmp_path / f"n.conv.{cutoff}"
        main(["convert", str(weights), "--model", str(cfg), "--out", str(out), "--verify"])
        assert out.read_bytes() == expected
    assert "n.conv.6: the first 6 layers, verified" in capsys.readouterr().out
    main(["convert", str(out), "--model", str(cfg), "--out", str(tmp_path / "m.weights"), "--cutoff", "4"])
    assert (tmp_path / "m.weights").read_bytes() == partial[4]


def test_first_layers_of_a_checkpoint_are_those_of_darknet_partial(darknet_files, tmp_path):
    cfg, weights, partial = darknet_files
    (tmp_path / "labels").write_text("a\nb\nc\nd\ne\n")
    words = ["--model", str(cfg), "--labels", str(tmp_path / "labels"), "--out", str(tmp_path / "n.safetensors")]
    main(["convert", str(weights), *words])
    out = tmp_path / "n.conv.6"
    main(["convert", str(tmp_path / "n.safetensors"), "--cutoff", "6", "--out", str(out), "--verify"])
    assert out.read_bytes() == partial[6]


def test_the_backbone_of_a_detector_is_cut_off(darknet_files, tmp_path):
    cfg, weights, partial = darknet_files
    text = cfg.read_text()
    cfg.write_text(text[: text.index("[avgpool]")] + "[yolo]\nclasses=80\n")
    main(["convert", str(weights), "--model", str(cfg), "--out", str(tmp_path / "n.conv.6")])
    assert (tmp_path / "n.conv.6").read_bytes() == partial[6]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--out", "n.conv.4", "--cutoff", "5"], "--cutoff 5: n.conv.4 says 4 layers"),
        (["--out", "n.safetensors", "--cutoff", "5"], "--cutoff 5: only a .weights or .conv.N can hold"),
        (["--out", "n.conv.99"], "layers=99: .*n.cfg has 12 layers"),
        (["--out", "n.conv.0"], "layers=0: .*n.cfg can be read from 1 layer on"),
    ],
)
def test_a_cutoff_that_cannot_be_is_refused(darknet_files, tmp_path, monkeypatch, words, message):
    cfg, weights, _ = darknet_files
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        main(["convert", str(weights), "--model", str(cfg), *words])
    assert not [path for path in tmp_path.iterdir() if path.name not in ("n.cfg", "n.weights")]


def test_the_first_layers_of_an_unnamed_network_are_refused(darknet_files, tmp_path):
    with pytest.raises(UserError, match=r"n.weights does not say what network it holds: add --model NAME"):
        main(["convert", str(darknet_files[1]), "--out", str(tmp_path / "n.conv.2")])


def test_a_gray_network_is_verified_with_gray_images(tmp_path):
    (tmp_path / "g.cfg").write_text("[net]\nheight=8\nwidth=8\nchannels=1\n[conv]\nfilters=2\n[avgpool]\n[softmax]\n")
    (tmp_path / "labels").write_text("a\nb\n")
    save_weights(load_cfg(tmp_path / "g.cfg"), tmp_path / "g.weights")
    words = ["--model", str(tmp_path / "g.cfg"), "--labels", str(tmp_path / "labels")]
    main(["convert", str(tmp_path / "g.weights"), *words, "--out", str(tmp_path / "g.safetensors"), "--verify"])
    assert (tmp_path / "g.safetensors").is_file()
