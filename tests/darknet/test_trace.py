"""The cfg that is written for a network computes what the network computes, whatever its options."""

from dataclasses import replace

import pytest
import timm
import torch
from torch import nn

import backbones
from backbones.darknet.network import load_cfg
from backbones.darknet.shapes import infer_layers
from backbones.darknet.summary import gmacs
from backbones.darknet.trace import activation_name, save_cfg, trace
from backbones.darknet.weights import load_weights, save_weights
from backbones.errors import UserError
from backbones.layers.fuse import fuse
from backbones.models import Backbone, Block, CspBackbone, Fusion, Stage, Stem

SMALL = {"num_classes": 10}
OPTIONS = [
    ("csresnext50", {"act": "leaky", "in_chans": 1}),
    ("csresnext50", {"act": "swish", "drop_rate": 0.2, "depths": [1, 2, 1, 1]}),
    ("csresnext50_ws_mi2", {"fusion_inputs": "dense"}),
    ("csresnext50_ws_mi2", {"fusion_inputs": "extra"}),
    ("csresnext50_ws", {"fusion_weights": "per_channel"}),
    ("csresnext50sub", {"downsample": "add"}),
    ("csresnext50sub", {"downsample": "split"}),
    ("csdarknet53", {"downsample": "concat"}),
    ("csresnext50sub_mo", {"fusion_maxout": "all"}),
    ("csdarknet53_omega_mi_db", {"drop_block_position": "every"}),
    ("csdarknet53_omega_mi_ip", {"pyramid": "reorg3d"}),
    ("csdarknet53_omega_mi_ip", {"pyramid": "conv_add"}),
    ("csdarknet53_omega_mi_db_ip", {}),
    ("csresnext50_ws_mi2", {"output_stride": 8, "drop_path_rate": 0.2}),
]


@torch.no_grad()
def require_same_outputs(model, folder, *, in_chans=3):
    """Write cfg and weights of ``model`` to files, read them again, and compare the outputs."""
    save_cfg(model, folder / "a.cfg")
    save_weights(model, folder / "a.weights")
    network = load_cfg(folder / "a.cfg").eval()
    load_weights(network, folder / "a.weights")
    images = torch.rand(1, in_chans, 64, 64)
    expected = model(images)
    assert (network(images) - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize(("name", "options"), OPTIONS, ids=str)
def test_the_written_cfg_computes_what_the_network_does(name, options, tmp_path):
    torch.manual_seed(0)
    model = backbones.create_model(name, **SMALL, **options).eval()
    require_same_outputs(model, tmp_path, in_chans=options.get("in_chans", 3))


TINY = Backbone(
    stem=Stem(8, kernel=3, stride=2),
    block=Block("bottleneck", groups=2),
    stages=(Stage(1, 8, 16, None, entry=4), Stage(2, 8, 16, 16, linear_split=True), Stage(1, 16, 16, 16)),
)
FIELDS = [
    {"downsample_kernel": 5, "output_stride": 8},
    {"downsample_kernel": 7, "downsample": "concat"},
    {"downsample_kernel": 9, "downsample": "split", "block": Block("bottleneck", groups=1)},
    {"downsample": "reorg3d", "pyramid": "reorg3d"},
    {"block": Block("darknet", groups=4), "downsample_kernel": 5},
    {"block": Block("bottleneck", groups=4, elastic="pool")},
    {"block": Block("bottleneck", groups=4, elastic="reorg3d"), "fusion": Fusion("stage", "per_feature", "softmax")},
    {"block": Block("darknet", elastic="reorg3d"), "downsample": "reorg3d", "drop_path_rate": 0.2},
]


@pytest.mark.parametrize("fields", FIELDS, ids=str)
def test_the_written_cfg_of_another_block_or_downsample_computes_what_the_network_does(fields, tmp_path):
    torch.manual_seed(0)
    require_same_outputs(CspBackbone(replace(TINY, **fields), num_classes=3).eval(), tmp_path)


ELASTIC = [
    ("convolutional", 64, 1), ("route", (4,), 0), ("convolutional", 32, 1), ("convolutional", 32, 3),
    ("route", (4,), 1), ("maxpool", 2, 2), ("convolutional", 32, 1), ("convolutional", 32, 3), ("upsample", 2),
    ("route", (7, 12), 0), ("shortcut", (4,)), ("convolutional", 64, 1),
]  # fmt: skip
"""Layers 4 to 15 of the published csdarknet53-elastic.cfg, with absolute numbers."""


def test_an_elastic_block_has_the_layers_of_the_published_cfg():
    names = {
        "convolutional": ("filters", "size"), "route": ("layers", "group_id"), "maxpool": ("size", "stride"),
        "upsample": ("stride",), "shortcut": ("from",),
    }  # fmt: skip
    elastic = Block("darknet", elastic="pool")
    spec = Backbone(Stem(32, kernel=3), elastic, (Stage(1, 64, 64, 64),), act="leaky")
    found = trace(CspBackbone(spec)).cfg.layers[4:16]
    assert [(layer.kind, *(layer[name] for name in names[layer.kind])) for layer in found] == ELASTIC


def test_the_elastic_csresnext50_has_as_many_layers_as_the_published_cfg():
    """The first stage of the cfg has no narrower entry."""
    spec = backbones.models.VARIANTS["csresnext50"].spec
    stages = (replace(spec.stages[0], entry=None), *spec.stages[1:])
    with torch.device("meta"):
        model = CspBackbone(replace(spec, block=replace(spec.block, elastic="pool"), stages=stages))
    kinds = [layer.kind for layer in trace(model).cfg.layers]
    assert (len(kinds), kinds.count("upsample"), kinds.count("maxpool")) == (188, 13, 14)


def test_the_cfg_names_the_kernel_and_the_space_to_depth():
    def layers(**fields):
        return trace(CspBackbone(replace(TINY, **fields), num_classes=3)).cfg.layers

    strided = [layer for layer in layers(downsample_kernel=7) if layer.kind == "convolutional" and layer["stride"] == 2]
    assert [(layer["size"], layer["groups"], layer["pad"]) for layer in strided] == [(3, 1, 1), (7, 2, 1), (7, 2, 1)]
    found = layers(downsample="reorg3d")
    starts = [index for index, layer in enumerate(found) if layer.kind == "reorg3d"]
    assert [(found[index]["stride"], found[index + 1]["size"]) for index in starts] == [(2, 1), (2, 1)]


@pytest.mark.parametrize(("name", "options"), OPTIONS, ids=str)
def test_the_cost_of_the_cfg_is_the_cost_of_the_network(name, options):
    with torch.device("meta"):
        model = backbones.create_model(name, **SMALL, **options)
    layers = infer_layers(trace(model).cfg)
    assert sum(layer.parameters for layer in layers) == sum(p.numel() for p in model.parameters())
    assert round(gmacs(layers) * 1e9) == count_multiplications(model, options.get("in_chans", 3))


def count_multiplications(model, in_chans):
    """Count the multiplications of all convolutions and the classifier for an image of 256 x 256."""
    counts = []
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(lambda m, _x, output: counts.append(m.weight[0].numel() * output.numel()))
    model.eval()(torch.empty(1, in_chans, 256, 256, device="meta"))
    return sum(counts)


def test_modules_are_those_of_the_network_itself():
    model = backbones.create_model("csresnext50_ws", num_classes=3)
    traced = trace(model)
    assert traced.modules[0] is model.stem.conv
    assert traced.names[27] == "stages.1.blocks.0.shortcut"
    assert traced.modules[27] is model.stages[1].blocks[0].shortcut
    assert traced.modules[-2] is model.get_classifier()


def test_tracing_leaves_no_hook_and_no_other_mode():
    model = backbones.create_model("csresnext50", num_classes=3).train()
    trace(model)
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())
    assert next(model.parameters()).device.type == "cpu"


def test_a_cfg_network_is_its_own_cfg(network):
    net = network("[conv]\nfilters=4\n[avgpool]\n[softmax]")
    assert trace(net).cfg is net.cfg


def test_burnin_update_is_written_as_asked():
    model = backbones.create_model("csresnext50_ws", num_classes=3)
    assert trace(model).cfg.layers[8]["burnin_update"] == 0
    assert trace(model, burnin_update=3).cfg.layers[8]["burnin_update"] == 3
    held = backbones.create_model("csresnext50_ws", num_classes=3, fusion_burnin_update=2)
    assert trace(held).cfg.layers[8]["burnin_update"] == 2


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("csresnext50", {"act": "prelu"}, "darknet has no activation PReLU"),
        ("csresnext50", {"global_pool": "max"}, "no global pooling 'max'"),
        ("csresnext50_ws", {"fusion_normalization": "sigmoid"}, "no weighted shortcut with normalization=sigmoid"),
        ("csdarknet53_omega_mi_db", {"drop_block_kind": "paper"}, "no DropBlock of kind paper"),
    ],
)
def test_what_darknet_cannot_do_is_named(name, options, message):
    with pytest.raises(UserError, match=message):
        trace(backbones.create_model(name, **SMALL, **options))


def test_a_fused_network_is_refused():
    model = fuse(backbones.create_model("csresnext50", num_classes=2))
    with pytest.raises(UserError, match="save it before fuse"):
        trace(model)


def test_another_network_is_refused(tmp_path):
    with pytest.raises(UserError, match="darknet has no such network as ResNet"):
        save_cfg(timm.create_model("test_resnet"), tmp_path / "a.cfg")
    assert not list(tmp_path.iterdir())


def test_a_calculation_between_the_layers_is_refused():
    spec = Backbone(stem=Stem(4, kernel=3), block=Block("darknet"), stages=(Stage(1, 4, 8, 8),))

    class Doubled(CspBackbone):
        def forward_features(self, x):
            return 2 * super().forward_features(x)

    with pytest.raises(UserError, match="that no section of a cfg does"):
        trace(Doubled(spec))


def test_leaky_has_darknets_slope():
    assert activation_name(nn.LeakyReLU(0.1)) == "leaky"
    with pytest.raises(UserError, match="slope"):
        activation_name(nn.LeakyReLU(0.01))


def test_hooks_of_others_are_not_called():
    model = backbones.create_model("csresnext50", num_classes=3)
    called = []
    model.stem.register_forward_hook(lambda *_: called.append(1))
    trace(model)
    assert not called
    assert model.stem._forward_hooks


def test_darknet_has_no_dilated_reorg3d_and_fills_no_edge():
    with torch.device("meta"):
        dilated = backbones.create_model("csresnext50", downsample="reorg3d", output_stride=16)
        odd = backbones.create_model("csresnext50", downsample="reorg3d", stem_stride=3)
    with pytest.raises(UserError, match=r"darknet's \[reorg3d\] has no dilation \(1\): leave output_stride out"):
        trace(dilated)
    with pytest.raises(UserError, match=r"darknet's \[reorg3d\] fills no edge: a map of 43x43"):
        trace(odd)


def test_darknet_cuts_no_edge_of_an_elastic_block():
    with torch.device("meta"):
        model = backbones.create_model("csresnext50", block_elastic="pool", stem_stride=3)
    with pytest.raises(UserError, match=r"darknet's \[upsample\] cuts no edge: a map of 43x43 is odd"):
        trace(model)


def test_darknet_has_no_dilated_pool():
    with torch.device("meta"):
        model = backbones.create_model("csresnext50sub", output_stride=16)
    with pytest.raises(UserError, match=r"darknet's \[maxpool\] has no dilation \(1\): leave output_stride out"):
        trace(model)
