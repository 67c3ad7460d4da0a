"""timm builds the network of a checkpoint and prepares its images as they were prepared."""

import json
from pathlib import Path

import pytest
import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_data_config

import backbones
from backbones.assembly.checkpoint import restore_model
from backbones.assembly.hub import describe_for_timm
from backbones.darknet.network import load_cfg
from backbones.data.loader import EvalLoader
from backbones.dataset.sources.folder import scan_folder
from backbones.recipe import Preprocess
from tests.darknet.tiny_cfg import write_tiny_cfg

CLASSES = ("ant", "bee", "cow", "dog")
TIMM = Preprocess("timm", 0.9, "bicubic", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def describe(network, preprocess: Preprocess = TIMM, img_size: int = 64, **model_args):
    about = {"classes": CLASSES, "img_size": img_size, "preprocess": preprocess, "model_args": model_args}
    return describe_for_timm(network, **about)


@pytest.mark.parametrize(
    ("name", "model_args", "size"),
    [
        ("test_resnet", "{drop_rate: 0.1}", 32),
        ("csresnext50_ws_mi2", "{depths: [1, 1, 1, 1], act: leaky}", 32),
        ("test_vit", "{img_size: 64}", 64),
        ("test_convnext.r160_in1k", "{pretrained_cfg_overlay: {license: none}}", 32),
    ],
)
def test_timm_gives_the_network_and_the_preprocessing_of_a_run(train, folder, name, model_args, size):
    words = ["--protocol", "timm", "--crop-pct", "0.9", "--interpolation", "bicubic", "--mean", "[0.5, 0.4, 0.3]"]
    words += ["--epochs", "null", "--steps", "1", "--loader", "reference", "--img-size", str(size)]
    train("--model", name, "--model-args", model_args, *words)
    network = timm.create_model(f"local-dir:{folder}/best", pretrained=True).eval()
    network = network.to(memory_format=torch.channels_last)  # in which sums are rounded as in the run
    images = torch.rand(2, 3, size, size)
    with torch.no_grad():
        assert torch.equal(network(images), restore_model(str(folder / "best")).model.eval()(images))
    config = resolve_data_config({}, model=network)
    assert (tuple(config["input_size"]), config["crop_pct"], config["crop_mode"]) == ((3, size, size), 0.9, "center")
    assert (config["interpolation"], tuple(config["mean"])) == ("bicubic", (0.5, 0.4, 0.3))
    assert (network.num_classes, network.pretrained_cfg["label_names"]) == (4, list(CLASSES))


def test_timms_transform_cuts_what_our_timm_protocol_cuts(image_folder, tmp_path):
    """The pixels of timm's own transform, built from config.json alone, are those of the reference loader."""
    for preprocess in (TIMM, Preprocess("full", mean=(0.1, 0.2, 0.3))):
        config = describe(backbones.create_model("test_resnet", num_classes=4), preprocess, 32)
        data = resolve_data_config({}, pretrained_cfg=json.loads(json.dumps(config))["pretrained_cfg"])
        transform = create_transform(**data)
        index = scan_folder(image_folder / "val")
        batches = EvalLoader(index, img_size=32, preprocess=preprocess, batch_size=20, loader="reference")
        (ours,) = (batch.images for batch in batches)
        theirs = torch.stack([transform(Image.open(index.place(row).path)) for row in range(len(index))])
        assert (ours - theirs).abs().max() < 2 / 255 / min(preprocess.std)


@pytest.mark.parametrize(("protocol", "mode"), [("darknet", "center"), ("timm", "center"), ("full", "squash")])
def test_each_protocol_has_its_nearest_word(protocol, mode):
    config = describe(backbones.create_model("test_resnet", num_classes=4), Preprocess(protocol))
    assert config["pretrained_cfg"]["crop_mode"] == mode


def test_arguments_that_load_or_place_weights_are_left_out():
    network = backbones.create_model("test_resnet", num_classes=4)
    config = describe(network, pretrained=True, checkpoint_path="a.pth", device="cpu", drop_rate=0.1, act_layer=None)
    assert config["model_args"] == {"drop_rate": 0.1}
    assert "model_args" not in describe(network, pretrained=True)


def test_a_network_of_fixed_size_says_so_and_one_of_other_channels_too():
    vit = backbones.create_model("test_vit", num_classes=4, img_size=64)
    assert describe(vit, img_size=64)["pretrained_cfg"]["fixed_input_size"] is True
    dynamic = backbones.create_model("test_vit", num_classes=4, dynamic_img_size=True)
    assert describe(dynamic, dynamic_img_size=True)["pretrained_cfg"]["fixed_input_size"] is False
    grey = backbones.create_model("test_resnet", num_classes=4, in_chans=1)
    assert describe(grey, in_chans=1)["pretrained_cfg"]["input_size"] == [1, 64, 64]


def test_facts_about_the_architecture_are_kept_and_those_about_its_source_are_not():
    config = describe(backbones.create_model("csresnext50", num_classes=4), Preprocess(), 256)
    assert config["num_features"] == 2048
    own = config["pretrained_cfg"]
    assert (own["first_conv"], own["classifier"], own["pool_size"]) == ("stem.conv.conv", "head.fc", (8, 8))
    known = describe(backbones.create_model("resnet50", num_classes=4))["pretrained_cfg"]
    assert not known.keys() & {"url", "hf_hub_id", "license", "tag", "test_input_size", "label_offset"}
    assert known["pool_size"] is None


def test_a_cfg_has_no_counterpart(tmp_path: Path):
    assert describe(load_cfg(write_tiny_cfg(tmp_path / "a.cfg", classes=4))) is None
