"""Checkpoints of older versions called the shortcut after the last block of a stage, and the sums of BiFpn, fuse."""

import pytest
import torch
from torch import nn

import backbones
from backbones.layers import BiFpn
from backbones.layers.old_names import current_names

SMALL = {"num_classes": 3, "depths": [1, 2, 1, 1], "fusion_inputs": "extra"}


def old_names(model):
    """Return the weights of ``model`` as older versions named them."""
    return {
        name.replace(".last_shortcut.", ".fuse.").replace(".shortcut.weight", ".fuse.weight")
        if ".blocks." not in name
        else name: value
        for name, value in model.state_dict().items()
    }


def networks(build):
    for seed in (0, 1):
        torch.manual_seed(seed)
        model = build().eval()
        for p in model.parameters():
            nn.init.normal_(p, std=0.1)
        yield model


@torch.no_grad()
@pytest.mark.parametrize("rename", [dict, current_names])
@pytest.mark.parametrize("name", ["csresnext50_ws", "csresnext50_ws_mi2", "csresnext50sub_mi2"])
def test_an_old_checkpoint_of_a_network_with_extra_shortcuts_computes_the_same(name, rename):
    source, target = networks(lambda: backbones.create_model(name, **SMALL))
    weights = old_names(source)
    assert "stages.0.fuse.weight" in weights
    target.load_state_dict(rename(weights))
    images = torch.randn(1, 3, 64, 64)
    assert torch.equal(target(images), source(images))


@torch.no_grad()
@pytest.mark.parametrize("rename", [dict, current_names])
def test_old_weights_of_a_bifpn_compute_the_same(rename):
    source, target = networks(lambda: BiFpn([4, 8], 4))
    weights = old_names(source)
    assert {"top_down.0.fuse.weight", "bottom_up.0.fuse.weight"} < weights.keys()
    target.load_state_dict(rename(weights))
    maps = [torch.randn(1, 4, 6, 6), torch.randn(1, 8, 3, 3)]
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(target(maps), source(maps), strict=True))


def test_the_order_is_kept_and_a_name_may_have_a_prefix():
    old = {"module.stages.3.fuse.weight": 1, "neck.0.top_down.1.fuse.weight": 2, "head.fc.bias": 3}
    assert list(current_names(old).items()) == [
        ("module.stages.3.last_shortcut.weight", 1),
        ("neck.0.top_down.1.shortcut.weight", 2),
        ("head.fc.bias", 3),
    ]


@pytest.mark.parametrize("name", ["stages.0.fuse_layers.0.weight", "substages.0.fuse.weight", "fuse.weight"])
def test_parts_of_other_networks_keep_their_names(name):
    assert list(current_names({name: 1})) == [name]


@pytest.mark.parametrize("name", backbones.list_models())
def test_current_weights_keep_their_names(name):
    with torch.device("meta"):
        names = list(backbones.create_model(name, fusion_inputs="extra").state_dict())
    assert list(current_names(dict.fromkeys(names))) == names
