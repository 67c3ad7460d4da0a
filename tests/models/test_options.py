"""Every other reading of the thread that docs/variants.md lists is an option of create_model."""

import math
from dataclasses import replace

import pytest
import timm
import torch
import torch.nn.functional as F
from timm.models import group_parameters
from torch import nn

import backbones
from backbones.darknet import bflops
from backbones.layers import DropBlock2d, Maxout, WeightedShortcut
from backbones.layers.fuse import fuse
from backbones.models import VARIANTS, Block, CspBackbone
from backbones.models.downsample import ConcatLevel


def create(name, **options):
    with torch.device("meta"):
        return backbones.create_model(name, **options)


def count(model):
    return sum(p.numel() for p in model.parameters())


def kinds(model, kind):
    return [module for module in model.modules() if isinstance(module, kind)]


ELASTIC = Block("bottleneck", groups=2, elastic="reorg3d")
OPTIONS = [
    ("csresnext50", {"depths": [1, 2, 1, 1]}),
    ("csresnext50_ws_mi2", {"fusion_inputs": "dense"}),
    ("csresnext50_ws_mi2", {"fusion_inputs": "extra"}),
    ("csdarknet53_omega_mi", {"fusion_inputs": "dense"}),
    ("csresnext50_ws", {"fusion_weights": "per_channel"}),
    ("csresnext50_ws", {"fusion_normalization": "sigmoid"}),
    ("csresnext50_ws", {"fusion_gradient": "darknet"}),
    ("csresnext50sub", {"downsample": "add"}),
    ("csresnext50sub", {"downsample": "split"}),
    ("csdarknet53", {"downsample": "concat"}),
    ("csdarknet53", {"downsample": "split"}),
    ("csresnext50sub_mo", {"fusion_maxout": "all"}),
    ("csdarknet53_omega_mi_db", {"drop_block_position": "every"}),
    ("csdarknet53_omega_mi_db", {"drop_block_stages": [0, -1], "drop_block_kind": "paper"}),
    ("csdarknet53_omega_mi_ip", {"pyramid": "reorg3d"}),
    ("csdarknet53_omega_mi_ip", {"pyramid": "conv_add"}),
    ("csresnext50", {"pyramid": "avgpool"}),
    ("csresnext50sub", {"pyramid": "avgpool"}),
    ("csresnext50sub", {"downsample_kernel": 5, "depths": [1, 2, 1, 1]}),
    ("csdarknet53", {"downsample_kernel": 7, "block_groups": 8, "depths": [1, 2, 1, 1, 1]}),
    ("csresnext50", {"downsample_kernel": 9, "drop_path_rate": 0.2, "depths": [1, 2, 1, 1]}),
    ("csresnext50", {"block_groups": 1, "depths": [1, 2, 1, 1]}),
    ("csresnext50_ws_mi2", {"block_elastic": "pool", "drop_path_rate": 0.2, "depths": [1, 2, 1, 1]}),
    ("csdarknet53_omega_mi_db_ip", {"block_elastic": "reorg3d", "depths": [1, 2, 1, 1, 1]}),
    ("csdarknet53_omega_mi_ip", {"downsample": "reorg3d", "depths": [1, 2, 1, 1, 1]}),
]


@pytest.mark.parametrize(("name", "options"), OPTIONS, ids=str)
@pytest.mark.parametrize("size", [(64, 64), (50, 71)])
def test_every_option_builds_a_network_with_features_at_any_size(name, options, size):
    model = create(name, features_only=True, **options).train()
    features = model(torch.empty(2, 3, *size, device="meta"))
    expected = [
        (channels, math.ceil(size[0] / reduction), math.ceil(size[1] / reduction))
        for channels, reduction in zip(model.feature_info.channels(), model.feature_info.reduction(), strict=True)
    ]
    assert [tuple(f.shape[1:]) for f in features] == expected
    assert list(model.feature_info.reduction()) == [2, 4, 8, 16, 32]


@pytest.mark.parametrize(("name", "options"), OPTIONS, ids=str)
def test_every_option_trains_every_parameter(name, options):
    torch.manual_seed(0)
    depths = [1, 2, 1, 1] if name.startswith("csresnext50") else [1, 2, 1, 1, 1]
    model = backbones.create_model(name, num_classes=2, **{"depths": depths, **options}).train()
    model(torch.randn(2, 3, 64, 64)).square().sum().backward()
    assert not [key for key, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]


@pytest.mark.parametrize(("name", "options"), OPTIONS, ids=str)
def test_every_option_keeps_the_layers_in_the_order_of_computation(name, options):
    model = create(name, **options)
    groups = group_parameters(model, model.group_matcher())
    layers = {key: layer for layer, keys in groups.items() for key in keys}
    order = [layers[key] for key, _ in model.named_parameters()]
    assert order == sorted(order)


def test_depths_change_the_number_of_blocks_alone():
    assert count(create("csresnext50", depths=(3, 4, 6, 3))) == count(create("csresnext50_morelayers"))
    assert [len(stage.blocks) for stage in create("csdarknet53", depths=[1, 1, 2, 2, 1]).stages] == [1, 1, 2, 2, 1]


@torch.no_grad()
@pytest.mark.parametrize("kernel", [5, 7, 9])
def test_a_larger_kernel_with_zeros_around_the_3x3_computes_the_same(tiny_spec, kernel):
    torch.manual_seed(0)
    small, large = (CspBackbone(replace(tiny_spec, downsample_kernel=size)).eval() for size in (3, kernel))
    weights, border = small.state_dict(), (kernel - 3) // 2
    weights["stages.1.downsample.conv.weight"] = F.pad(weights["stages.1.downsample.conv.weight"], [border] * 4)
    large.load_state_dict(weights)
    images = torch.randn(2, 3, 41, 38)
    torch.testing.assert_close(large(images), small(images))


def test_groups_of_a_network_are_an_option_that_changes_its_wide_convolutions_only():
    plain, ungrouped = create("csresnext50"), create("csresnext50", block_groups=1)
    for (name, before), after in zip(plain.named_parameters(), ungrouped.parameters(), strict=True):
        assert after.shape[1:2] == (32 * before.shape[1],) if before.dim() == 4 and ".convs.1." in name else True
    widths = [(128, 3), (256, 3), (512, 5), (1024, 2)]
    blocks = sum(depth * 9 * width**2 for width, depth in widths)
    strided = sum(9 * width**2 for width, _ in widths[1:])
    assert count(ungrouped) - count(plain) == (blocks + strided) * 31 // 32


@torch.no_grad()
@pytest.mark.parametrize("fields", [{"downsample": "reorg3d"}, {"downsample_kernel": 7}, {"block": ELASTIC}], ids=str)
def test_a_fused_network_with_these_options_computes_the_same(tiny_spec, fields):
    torch.manual_seed(0)
    model = CspBackbone(replace(tiny_spec, **fields), num_classes=3).eval()
    images = torch.randn(2, 3, 41, 38)
    torch.testing.assert_close(fuse(model)(images), model(images))


def test_dense_fusion_lets_every_shortcut_take_all_earlier_ones():
    model = create("csresnext50_ws_mi2", fusion_inputs="dense")
    inputs = [[len(block.shortcut.channels) for block in stage.blocks] for stage in model.stages]
    assert inputs == [[2, 3, 4], [2, 3, 4], [2, 3, 4, 5, 6], [2, 3]]
    assert model.stages[0].blocks[2].shortcut.channels == (128, 128, 128, 64)


def test_extra_fusion_adds_one_shortcut_behind_the_last_block():
    model = create("csresnext50_ws_mi2", fusion_inputs="extra")
    assert {len(block.shortcut.channels) for stage in model.stages for block in stage.blocks} == {2}
    assert [len(stage.last_shortcut.channels) for stage in model.stages] == [4, 4, 6, 3]
    assert len(kinds(model, WeightedShortcut)) == 13 + 4
    assert all(isinstance(stage.last_shortcut.act, nn.Identity) for stage in model.stages)


def test_extra_fusion_of_fresh_weights_is_the_mean_of_all_outputs():
    torch.manual_seed(0)
    model = backbones.create_model("csresnext50_ws_mi2", fusion_inputs="extra", depths=[2, 1, 1, 1]).eval()
    stage, outputs, fused = model.stages[0], [], []
    stage.entry.register_forward_hook(lambda _m, _i, y: outputs.append(nn.functional.pad(y, (0, 0, 0, 0, 0, 64))))
    for block in stage.blocks:
        block.register_forward_hook(lambda _m, _i, y: outputs.append(y))
    stage.last_shortcut.register_forward_hook(lambda _m, _i, y: fused.append(y))
    with torch.no_grad():
        model(torch.randn(1, 3, 64, 64))
    torch.testing.assert_close(fused[0], sum(outputs) / 3.0001)


def test_adding_the_branches_costs_no_parameters_and_what_darknet_counts():
    model = create("csresnext50sub", downsample="add")
    assert count(model) == 20_557_480
    assert round(bflops(model), 3) == 7.936


def test_splitting_the_branches_feeds_the_pool_to_the_cross_path():
    torch.manual_seed(0)
    model = backbones.create_model("csresnext50sub", downsample="split", depths=[1, 1, 1, 1]).eval()
    assert count(model) == count(create("csresnext50", depths=[1, 1, 1, 1]))
    stage, seen = model.stages[1], {}
    for name in ("cross", "entry"):
        getattr(stage, name).register_forward_pre_hook(lambda _m, x, name=name: seen.update({name: x[0]}))
    x = torch.randn(1, 256, 9, 9)
    with torch.no_grad():
        stage(x)
        torch.testing.assert_close(seen["cross"], nn.functional.max_pool2d(x, 2, ceil_mode=True))
        torch.testing.assert_close(seen["entry"], stage.downsample.conv(x))


def test_maxout_stands_at_the_end_of_stages_or_everywhere():
    stage_ends = create("csresnext50sub_mo")
    everywhere = create("csresnext50sub_mo", fusion_maxout="all")
    assert (len(kinds(stage_ends, Maxout)), len(kinds(stage_ends, WeightedShortcut))) == (4, 9)
    assert (len(kinds(everywhere, Maxout)), len(kinds(everywhere, WeightedShortcut))) == (13, 0)
    assert everywhere.stages[0].blocks[0].shortcut.channels == (128, 64)
    assert count(everywhere) == count(stage_ends)


@pytest.mark.parametrize(
    ("options", "places"),
    [
        ({}, ["stages.3.drop", "stages.4.drop"]),
        ({"drop_block_stages": (2, -1)}, ["stages.2.drop", "stages.4.drop"]),
        (
            {"drop_block_stages": (4,), "drop_block_position": "every"},
            [f"stages.4.blocks.{number}.drop" for number in range(4)],
        ),
    ],
)
def test_drop_block_stands_where_the_option_says(options, places):
    model = create("csdarknet53_omega_mi_db", **options)
    assert [name for name, module in model.named_modules() if isinstance(module, DropBlock2d)] == places


def test_drop_block_takes_its_strength_from_the_spec():
    model = create("csdarknet53_omega_mi_db", drop_block_probability=0.2, drop_block_size=5, drop_block_kind="paper")
    (layer, _) = kinds(model, DropBlock2d)
    assert (layer.probability, layer.block_size, layer.kind) == (0.2, 5, "paper")


def test_a_pyramid_by_reorg3d_keeps_every_pixel():
    widths = [stage.cross.conv.in_channels for stage in create("csdarknet53_omega_mi_ip", pyramid="reorg3d").stages]
    assert widths == [64 + 12, 128 + 48, 256 + 192, 512 + 768, 1024 + 3072]


def test_a_pyramid_by_convolution_leaves_the_widths_as_they_are():
    model = create("csdarknet53_omega_mi_ip", pyramid="conv_add")
    assert [stage.cross.conv.in_channels for stage in model.stages] == [64, 128, 256, 512, 1024]
    extra = sum(3 * width + 2 * width for width in (64, 128, 256, 512, 1024))
    assert count(model) == count(create("csdarknet53_omega_mi")) + extra


def test_the_pyramid_sees_the_image_at_the_size_of_the_stage():
    torch.manual_seed(0)
    model = backbones.create_model("csdarknet53_omega_mi_ip", depths=[1] * 5).eval()
    image, seen = torch.randn(1, 3, 64, 96), []
    for stage in model.stages:
        stage.cross.register_forward_pre_hook(lambda _m, x: seen.append(x[0][:, -3:]))
    with torch.no_grad():
        model(image)
    for k, level in enumerate(seen, start=1):
        torch.testing.assert_close(level, nn.functional.avg_pool2d(image, 2**k))


def test_a_pyramid_follows_the_channels_of_the_image():
    model = create("csdarknet53_omega_mi_ip", in_chans=1)
    assert model.stages[0].cross.conv.in_channels == 64 + 1
    assert model(torch.empty(1, 1, 64, 64, device="meta")).shape == (1, 1000)


def test_checkpointed_stages_of_a_pyramid_compute_the_same():
    torch.manual_seed(0)
    model = backbones.create_model("csdarknet53_omega_mi_ip", num_classes=2, depths=[1] * 5).train()
    images, gradients = torch.randn(2, 3, 64, 64), []
    for enable in (False, True):
        model.set_grad_checkpointing(enable)
        model.zero_grad()
        model(images).square().sum().backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    torch.testing.assert_close(*gradients)


SMALL = {
    "csresnext50_ws": {"depths": [1, 2, 1, 1], "fusion_gradient": "darknet"},
    "csresnext50sub_mo": {"depths": [1, 2, 1, 1]},
    "csdarknet53_omega_mi_db_ip": {"depths": [1, 2, 1, 1, 1], "drop_block_stages": [1, -1]},
}


def create_small(name):
    torch.manual_seed(0)
    return backbones.create_model(name, num_classes=2, **SMALL[name])


@pytest.mark.parametrize("name", ["csresnext50sub_mo", "csdarknet53_omega_mi_db_ip"])
def test_a_variant_is_one_graph_also_in_training(name):
    torch.manual_seed(0)
    spec = replace(VARIANTS[name].spec, stages=VARIANTS[name].spec.stages[:2])
    model, images = CspBackbone(spec, num_classes=2).train(), torch.randn(2, 3, 64, 64)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    torch.manual_seed(1)
    expected = model(images)
    torch.manual_seed(1)
    torch.testing.assert_close(compiled(images), expected)


@pytest.mark.parametrize("name", SMALL)
def test_a_variant_computes_the_same_in_channels_last_and_keeps_to_it(name):
    model, images = create_small(name).eval(), torch.randn(2, 3, 64, 96)
    expected, orders = model(images), []
    for stage in model.stages:
        stage.merge.register_forward_pre_hook(
            lambda _m, x: orders.append(x[0].is_contiguous(memory_format=torch.channels_last))
        )
    model.to(memory_format=torch.channels_last)
    torch.testing.assert_close(model(images.contiguous(memory_format=torch.channels_last)), expected)
    assert all(orders)


@pytest.mark.parametrize("name", SMALL)
def test_a_variant_stays_bfloat16_under_autocast(name):
    model, types = create_small(name).train(), set()
    for module in model.modules():
        if isinstance(module, WeightedShortcut | Maxout | DropBlock2d | ConcatLevel):
            module.register_forward_hook(lambda _m, _i, y: types.add(y.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(torch.randn(2, 3, 64, 64)).float().square().sum()
    loss.backward()
    assert types == {torch.bfloat16}
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_options_reach_a_model_built_by_timm():
    assert len(kinds(timm.create_model("csresnext50sub", fusion_maxout="stage", num_classes=2), Maxout)) == 4


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("csresnext50", {"downsample": "concatenate"}, "Did you mean concat"),
        ("csdarknet53", {"downsample": "add"}, r"downsample='add' cannot add the 32 channels.*stages\[0\].*to the 64"),
        ("csdarknet53", {"downsample": "reorg"}, "Did you mean reorg3d"),
        ("csdarknet53", {"downsample_kernel": 4}, "downsample_kernel=4 is not one of 3, 5, 7, 9"),
        ("csdarknet53", {"downsample_kernel": "5"}, "downsample_kernel='5' is not one of 3, 5, 7, 9"),
        ("csresnext50", {"block_elastic": "pools"}, "Did you mean pool"),
        ("csdarknet53", {"block_groups": 48}, r"stages\[0\].width=64 is not divisible by block.groups=48"),
        ("csdarknet53", {"pyramid": "avg_pool"}, "Did you mean avgpool"),
        ("csresnext50sub", {"pyramid": "avgpool", "downsample": "split"}, "pyramid='avgpool' cannot join"),
        ("csdarknet53", {"drop_block_stages": [5]}, r"drop_block.stages=\(5,\) must lie in \[-5, 4\]"),
        ("csdarknet53", {"drop_block_position": "first"}, "drop_block.position='first'"),
        ("csdarknet53", {"drop_block_probability": 1.5}, r"drop_block.probability=1.5 must lie in \[0, 1\)"),
        ("csresnext50_ws", {"fusion_maxout": "all"}, "nothing to weigh with fusion.maxout='all'"),
        ("csresnext50_ws", {"fusion_burnin_update": -1}, "burnin_update=-1 must not be negative"),
        ("csresnext50", {"depths": [1, 2]}, r"depths=\(1, 2\) must have one number for each of the 4 stages"),
        ("csresnext50", {"depths": [1, 2, 0, 1]}, "stage.depth=0 must be at least 1"),
        ("csresnext50", {"stem_stride": 3, "pyramid": "avgpool"}, "halves the image, but stem.stride=3 does not"),
    ],
)
def test_options_that_cannot_be_built_are_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        create(name, **options)
