"""A graph that `torch.fx` or torchvision traces computes what the network does."""

from dataclasses import replace

import pytest
import torch
from torch.fx import symbolic_trace
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

import backbones
from backbones.layers import set_drop_block_progress
from backbones.layers.norm_act import set_recompute
from backbones.models import Block, CspBackbone, DropBlock, Fusion, Stem

ODD = (41, 38)
"""Height and width that are rounded up at each halving."""

FIELDS = [
    {},
    {"fusion": Fusion("extra", "per_channel", "relu", gradient="darknet")},
    {"fusion": Fusion("dense", "per_feature", "sigmoid")},
    {"fusion": Fusion("stage", maxout="stage")},
    {"downsample": "concat", "act": "prelu_channel"},
    {"downsample": "add", "act": "leaky"},
    {"downsample": "split"},
    {"pyramid": "avgpool", "drop_block": DropBlock(stages=(-1,), probability=0.5, size=2)},
    {"pyramid": "reorg3d", "drop_block": DropBlock(stages=(0, 1), position="every", kind="paper", size=2)},
    {"pyramid": "conv_add", "drop_path_rate": 0.5},
    {"downsample": "reorg3d", "pyramid": "reorg3d"},
    {"downsample": "reorg3d", "output_stride": 8, "stem": Stem(4, kernel=7, stride=8), "drop_path_rate": 0.5},
    {"downsample": "concat", "downsample_kernel": 9},
    {"block": Block("bottleneck", groups=2, elastic="pool"), "drop_path_rate": 0.5},
    {"block": Block("darknet", elastic="reorg3d"), "pyramid": "avgpool"},
    {"downsample": "concat", "output_stride": 8, "stem": Stem(4, kernel=7, stride=8)},
]


@pytest.fixture
def images():
    return torch.randn(2, 3, *ODD, generator=torch.Generator().manual_seed(1))


def build(spec, **fields):
    torch.manual_seed(0)
    return CspBackbone(replace(spec, **fields), num_classes=3)


def run(network, images):
    """Return the logits and the gradients of one step, with random numbers of one seed."""
    torch.manual_seed(2)
    logits = network(images)
    parameters = dict(network.named_parameters())
    gradients = torch.autograd.grad(logits.square().sum(), list(parameters.values()))
    return logits, dict(zip(parameters, gradients, strict=True))


@pytest.mark.parametrize("fields", FIELDS, ids=str)
def test_the_graph_has_the_same_logits_gradients_and_statistics(tiny_spec, images, fields):
    model = build(tiny_spec, **fields).train()
    set_recompute(model, on=False)  # a graph consists of torch's own operations, which round in another order
    graph = symbolic_trace(build(tiny_spec, **fields).train())
    torch.testing.assert_close(run(graph, images), run(model, images), rtol=0, atol=0)
    statistics = {name: value for name, value in model.named_buffers() if "running" in name}
    traced = dict(graph.named_buffers())
    torch.testing.assert_close({name: traced[name] for name in statistics}, statistics, rtol=0, atol=0)


@torch.no_grad()
@pytest.mark.parametrize("fields", FIELDS, ids=str)
def test_the_graph_of_an_evaluation_has_the_same_logits_at_any_size(tiny_spec, images, fields):
    model = build(tiny_spec, **fields).eval()
    graph = symbolic_trace(model)
    for size in ((32, 32), ODD):
        cut = images[:, :, : size[0], : size[1]]
        assert torch.equal(graph(cut), model(cut))


def test_the_graph_drops_other_squares_in_each_call_and_follows_the_progress(tiny_spec, images):
    model = build(tiny_spec, drop_block=DropBlock(stages=(0, 1), probability=0.5, size=2)).train()
    graph = symbolic_trace(model)
    assert not torch.equal(graph(images), graph(images))
    set_drop_block_progress(model, 0.0)
    torch.testing.assert_close(graph(images), graph(images))


def test_grad_checkpointing_traces_too(tiny_spec, images):
    model = build(tiny_spec).train()
    expected = run(model, images)
    model.set_grad_checkpointing()
    torch.testing.assert_close(run(symbolic_trace(model), images), expected)


@torch.no_grad()
def test_a_graph_refuses_images_of_other_channels_as_the_network_does(tiny_spec):
    model = build(tiny_spec, pyramid="conv_add").eval()
    for network in (model, symbolic_trace(model)):
        with pytest.raises(RuntimeError, match="to have 3 channels, but got 1"):
            network(torch.zeros(1, 1, 32, 32))


@pytest.mark.parametrize("name", ["csresnext50_ws_mi2", "csresnext50sub_mo", "csdarknet53_omega_mi_db_ip"])
def test_torchvision_extracts_every_level_in_both_modes(name):
    depths = [1] * (4 if name.startswith("csresnext50") else 5)
    with torch.device("meta"):
        model = backbones.create_model(name, num_classes=2, depths=depths)
        nodes = {level["module"]: str(index) for index, level in enumerate(model.feature_info)}
        extractor = create_feature_extractor(model, nodes)
        images = torch.empty(2, 3, 50, 71)
    for mode in (True, False):
        features = extractor.train(mode)(images)
        expected = model.train(mode).forward_intermediates(images, intermediates_only=True)
        assert [f.shape for f in features.values()] == [f.shape for f in expected]


@torch.no_grad()
def test_an_extracted_level_has_the_numbers_of_forward_intermediates(tiny_spec, images):
    model = build(tiny_spec, pyramid="avgpool").eval()
    extractor = create_feature_extractor(model, {"stem.conv": "C1", "stages.0": "C2", "stages.1": "C3"})
    expected = dict(zip(("C1", "C2", "C3"), model.forward_intermediates(images, intermediates_only=True), strict=True))
    torch.testing.assert_close(dict(extractor.eval()(images)), expected, rtol=0, atol=0)


def test_a_traced_node_carries_the_name_of_its_layer(tiny_spec):
    _, nodes = get_graph_node_names(build(tiny_spec, pyramid="avgpool", fusion=Fusion("extra", maxout="stage")))
    layers = {"pyramid.input_pyramid", "stages.0.blocks.0.shortcut.sum_fitting", "stages.1.last_shortcut.max_fitting"}
    assert layers <= set(nodes)
