import math
from dataclasses import replace

import pytest
import timm
import torch
from timm.models import group_parameters
from timm.utils.model import reparameterize_model
from torch import nn

import backbones
from backbones.layers import WeightedShortcut
from backbones.models import CspBackbone
from backbones.models.cspnet import feature_levels
from backbones.models.spec import Stem

FAMILIES = {"csresnext50": "cspresnext50", "csdarknet53": "cspdarknet53"}
"""Ours, and the network of the same family in timm."""


@pytest.fixture
def model(tiny_spec):
    torch.manual_seed(0)
    return CspBackbone(tiny_spec, num_classes=3).eval()


@pytest.fixture
def images():
    return torch.randn(2, 3, 50, 38, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", FAMILIES)
def test_features_have_the_levels_of_timms_network_of_the_family(name):
    with torch.device("meta"):
        ours = timm.create_model(name, features_only=True)
        theirs = timm.create_model(FAMILIES[name], features_only=True)
    levels = [
        (channels, reduction)
        for channels, reduction in zip(theirs.feature_info.channels(), theirs.feature_info.reduction(), strict=True)
        if reduction > 1  # timm lists the full-size stem of cspdarknet53 too
    ]
    assert ours.feature_info.reduction() == [2, 4, 8, 16, 32]
    assert list(zip(ours.feature_info.channels(), ours.feature_info.reduction(), strict=True)) == levels


@pytest.mark.parametrize("name", backbones.list_models())
@pytest.mark.parametrize("size", [(64, 64), (50, 71)])
def test_features_have_the_announced_channels_and_strides_at_any_size(name, size):
    with torch.device("meta"):
        model = timm.create_model(name, features_only=True)
        features = model(torch.empty(1, 3, *size))
    info = model.feature_info
    assert [tuple(f.shape[1:]) for f in features] == [
        (channels, math.ceil(size[0] / reduction), math.ceil(size[1] / reduction))
        for channels, reduction in zip(info.channels(), info.reduction(), strict=True)
    ]


def test_every_level_is_the_output_of_the_module_it_names(model, images):
    seen = {}
    for level in model.feature_info:
        name = level["module"]
        model.get_submodule(name).register_forward_hook(
            lambda _module, _inputs, output, name=name: seen.update({name: output})
        )
    last, features = model.forward_intermediates(images)
    assert len(features) == 3
    assert all(f is seen[level["module"]] for f, level in zip(features, model.feature_info, strict=True))
    assert last is features[-1]
    torch.testing.assert_close(last, model.forward_features(images))


@pytest.mark.parametrize("indices", [(0,), (1,), (2, 0), (-1,), 2, None])
def test_a_chosen_feature_is_the_same_whether_the_rest_is_pruned_or_not(model, images, indices):
    expected = model.forward_intermediates(images, indices, intermediates_only=True)
    early = model.forward_intermediates(images, indices, intermediates_only=True, stop_early=True)
    pruned = model.prune_intermediate_layers(indices)
    actual = model.forward_intermediates(images, pruned, intermediates_only=True)
    torch.testing.assert_close(early, expected, rtol=0, atol=0)
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)


def test_pruning_removes_the_stages_behind_the_last_feature_and_the_head(model):
    assert model.prune_intermediate_layers((-2, 0)) == [1, 0]
    assert len(model.stages) == 1
    assert isinstance(model.get_classifier(), nn.Identity)


def test_pruning_may_keep_the_head_of_a_whole_network(model, images):
    expected = model(images)
    model.prune_intermediate_layers((0, -1), prune_head=False)
    torch.testing.assert_close(model(images), expected)


@pytest.mark.parametrize("indices", [(3,), (-4,), 4, 0, ()])
def test_a_feature_that_does_not_exist_is_refused(model, images, indices):
    with pytest.raises(ValueError, match=r"there are 3 feature maps, 0 to 2"):
        model.forward_intermediates(images, indices)


def test_feature_maps_come_in_one_format(model, images):
    with pytest.raises(ValueError, match="output_fmt='NLC'"):
        model.forward_intermediates(images, output_fmt="NLC")


def test_out_indices_choose_features_in_the_order_asked():
    with torch.device("meta"):
        model = backbones.create_model("csresnext50_ws_mi2", features_only=True, out_indices=(3, 1))
        features = model(torch.empty(1, 3, 64, 64))
    assert [f.shape[1] for f in features] == model.feature_info.channels() == [1024, 256]


def test_a_stem_at_full_size_is_no_level(tiny_spec):
    spec = replace(tiny_spec, stem=Stem(4, kernel=3))
    assert [level["reduction"] for level in feature_levels(spec)] == [1, 2]
    assert [level["module"] for level in feature_levels(spec)] == ["stages.0", "stages.1"]


def test_the_forward_pass_is_features_then_head(model, images):
    features = model.forward_features(images)
    assert features.shape == (2, 16, 7, 5)
    torch.testing.assert_close(model.forward_head(features), model(images))


def test_pre_logits_are_the_mean_of_the_last_map(model, images):
    features = model.forward_features(images)
    pooled = model.forward_head(features, pre_logits=True)
    torch.testing.assert_close(pooled, features.mean((2, 3)))
    torch.testing.assert_close(model.get_classifier()(pooled), model(images))


def test_the_classifier_starts_by_darknets_rule(tiny_spec):
    classifier = CspBackbone(tiny_spec, num_classes=4000).get_classifier()
    bound = math.sqrt(2 / 16)
    assert 0.99 * bound < classifier.weight.abs().max().item() <= bound
    assert (classifier.bias == 0).all()


def test_resetting_the_classifier_follows_the_same_rule(model, images):
    model.reset_classifier(4000)
    bound = math.sqrt(2 / 16)
    assert model.num_classes == 4000
    assert model(images).shape == (2, 4000)
    assert 0.99 * bound < model.get_classifier().weight.abs().max().item() <= bound


def test_without_classes_and_pooling_the_model_returns_its_last_map(model, images):
    model.reset_classifier(0, "")
    torch.testing.assert_close(model(images), model.forward_features(images))


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("csresnext50", 0),
        ("csresnext50_ws", 13),
        ("csresnext50_ws_mi2", 13),
        ("csresnext50sub_mo", 0),
        ("csdarknet53", 0),
        ("csdarknet53_ws", 23),
        ("csdarknet53_omega_mi_db_ip", 23),
    ],
)
def test_fusion_weights_do_not_decay(name, count):
    with torch.device("meta"):
        model = backbones.create_model(name)
    names = model.no_weight_decay()
    assert len(names) == count
    assert all(isinstance(model.get_submodule(n.removesuffix(".weight")), WeightedShortcut) for n in names)
    assert names <= set(dict(model.named_parameters()))


def test_learned_slopes_do_not_decay_either(tiny_spec):
    model = CspBackbone(replace(tiny_spec, act="prelu_channel"))
    slopes = {f"{name}.weight" for name, m in model.named_modules() if isinstance(m, nn.PReLU)}
    assert slopes
    assert slopes < model.no_weight_decay()


def layer_of(model, *, coarse):
    groups = group_parameters(model, model.group_matcher(coarse=coarse))
    return {name: layer for layer, names in groups.items() for name in names}


def test_coarse_layers_are_stem_stages_and_head(model):
    layers = layer_of(model, coarse=True)
    assert layers.keys() == dict(model.named_parameters()).keys()
    for name, layer in layers.items():
        assert layer == {"stem": 0, "stages": 1 + int(name.split(".")[1]) if "stages" in name else -1}.get(
            name.split(".")[0], 3
        )


def test_fine_layers_follow_the_order_of_computation(model):
    layers = layer_of(model, coarse=False)
    numbers = [layers[name] for name, _ in model.named_parameters()]
    assert numbers == sorted(numbers)
    assert layers["stages.0.entry.conv.weight"] == 1
    assert layers["stages.0.blocks.0.shortcut.weight"] == 2
    assert layers["stages.0.merge.conv.weight"] == layers["stages.0.blocks.2.convs.0.conv.weight"] == 4
    assert layers["head.fc.weight"] == 1 + (1 + 3) + (1 + 2)


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("csresnext50", {}),
        ("csresnext50_ws_mi2", {}),
        ("csresnext50_ws_mi2", {"fusion_inputs": "extra"}),
        ("csresnext50sub_mo", {}),
        ("csdarknet53_omega_mi_db", {}),
        ("csdarknet53_omega_mi_ip", {}),
    ],
    ids=str,
)
def test_timms_reparameterization_for_inference_changes_no_output(name, options):
    depths = [1, 2, 1, 1] if name.startswith("csresnext50") else [1, 2, 1, 1, 1]
    model = backbones.create_model(name, num_classes=3, depths=depths, **options).eval()
    for norm in (module for module in model.modules() if isinstance(module, nn.BatchNorm2d)):
        norm.running_mean.normal_(std=0.1)
        norm.running_var.uniform_(0.5, 2)
    x = torch.randn(1, 3, 64, 64)
    folded = reparameterize_model(model)
    assert not [module for module in folded.modules() if isinstance(module, nn.BatchNorm2d)]
    assert not [m for m in folded.modules() if isinstance(m, WeightedShortcut) and m.normalization != "none"]
    expected = model(x)
    assert (folded(x) - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert torch.equal(reparameterize_model(folded)(x), folded(x)), "twice is once"


def test_every_parameter_gets_a_gradient(tiny_spec):
    model = CspBackbone(tiny_spec, num_classes=3).train()
    model(torch.randn(4, 3, 32, 32)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_bfloat16_autocast_is_close_to_float32_and_stays_bfloat16_in_the_shortcuts(tiny_spec):
    torch.manual_seed(0)
    model = CspBackbone(tiny_spec, num_classes=3).train()
    images = torch.randn(8, 3, 32, 32)
    expected = model(images)
    types = set()
    for module in model.modules():
        if isinstance(module, WeightedShortcut):
            module.register_forward_hook(lambda _module, _inputs, output: types.add(output.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(images)
    logits.float().sum().backward()
    assert types == {torch.bfloat16}
    assert all(p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in model.parameters())
    torch.testing.assert_close(logits.float(), expected, atol=0.1 * expected.abs().max().item(), rtol=0)


def test_channels_last_gives_the_same_numbers(model, images):
    expected = model(images)
    actual = model.to(memory_format=torch.channels_last)(images.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(actual, expected)


def test_a_trained_state_loads_into_a_fresh_model(model, tiny_spec, images):
    fresh = CspBackbone(tiny_spec, num_classes=3).eval()
    fresh.load_state_dict(model.state_dict())
    torch.testing.assert_close(fresh(images), model(images), rtol=0, atol=0)


def test_the_network_is_one_graph(model, images):
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(images), model(images))


@pytest.mark.slow
def test_a_compiled_training_step_has_the_same_gradients(tiny_spec):
    spec = replace(tiny_spec, stages=tiny_spec.stages[:1])
    model = CspBackbone(spec, num_classes=3).double().train()
    images = torch.randn(4, 3, 32, 32, dtype=torch.float64)
    model(images).square().sum().backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    torch.compile(model, fullgraph=True)(images).square().sum().backward()
    torch.testing.assert_close({name: p.grad for name, p in model.named_parameters()}, expected)


DILATED = [
    ("csresnext50_ws_mi2", 16, {}),
    ("csresnext50sub_mo", 8, {}),
    ("csresnext50sub", 8, {"downsample": "split"}),
    ("csdarknet53_ws", 8, {}),
    ("csresnext50", 8, {"downsample": "reorg3d"}),
    ("csresnext50sub", 8, {"downsample_kernel": 7}),
]


@torch.no_grad()
@pytest.mark.parametrize(("name", "output_stride", "options"), DILATED, ids=str)
def test_a_dilated_network_computes_the_same_on_the_coarse_grid(name, output_stride, options):
    """Dilation in place of stride computes the cells in between and leaves the others as they are."""
    depths = [1, 2, 1, 2] if name.startswith("csresnext50") else [1, 1, 2, 1, 2]
    coarse = backbones.create_model(name, num_classes=2, depths=depths, **options).eval()
    fine = backbones.create_model(name, num_classes=2, depths=depths, output_stride=output_stride, **options).eval()
    fine.load_state_dict(coarse.state_dict())
    images = torch.randn(1, 3, 50, 71)
    expected = coarse.forward_intermediates(images, intermediates_only=True)
    found = fine.forward_intermediates(images, intermediates_only=True)
    pairs = zip(coarse.feature_info, fine.feature_info, expected, found, strict=True)
    for before, after, x, y in pairs:
        step = before["reduction"] // after["reduction"]
        assert y.shape[2:] == (math.ceil(50 / after["reduction"]), math.ceil(71 / after["reduction"]))
        torch.testing.assert_close(y[:, :, ::step, ::step], x, atol=1e-5 * x.abs().max().item(), rtol=0)


@torch.no_grad()
def test_timms_network_of_the_family_has_the_same_reductions_with_an_output_stride():
    with torch.device("meta"):
        for output_stride in (8, 16, 32):
            reductions = [
                timm.create_model(name, features_only=True, output_stride=output_stride).feature_info.reduction()
                for pair in FAMILIES.items()
                for name in pair
            ]
            assert reductions[0] == reductions[1]
            assert reductions[2] == reductions[3][-5:]


def test_stochastic_depth_grows_from_the_first_block_to_the_last(tiny_spec):
    model = CspBackbone(replace(tiny_spec, drop_path_rate=0.4))
    rates = [getattr(block.drop_path, "drop_prob", 0.0) for stage in model.stages for block in stage.blocks]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])


@pytest.mark.parametrize("way", ["traced", "checkpointed", "both"])
def test_stochastic_depth_leaves_out_the_same_samples_however_it_is_run(tiny_spec, way):
    torch.manual_seed(0)
    model = CspBackbone(replace(tiny_spec, drop_path_rate=0.5), num_classes=3).train()
    images = torch.randn(8, 3, 32, 32)

    def step(network):
        torch.manual_seed(1)
        return torch.autograd.grad(network(images).square().sum(), list(model.parameters()))

    expected = step(model)
    assert any(not torch.equal(a, b) for a, b in zip(step(model.eval()), expected, strict=True))
    model.train().set_grad_checkpointing(way != "traced")
    network = model if way == "checkpointed" else torch.fx.symbolic_trace(model)
    torch.testing.assert_close(step(network), expected)


@torch.no_grad()
def test_stochastic_depth_is_no_part_of_evaluation_weights_or_folding(tiny_spec, images):
    torch.manual_seed(0)
    plain = CspBackbone(tiny_spec, num_classes=3).eval()
    torch.manual_seed(0)
    deep = CspBackbone(replace(tiny_spec, drop_path_rate=0.5), num_classes=3).eval()
    assert list(deep.state_dict()) == list(plain.state_dict())
    assert torch.equal(deep(images), plain(images))
    torch.testing.assert_close(reparameterize_model(deep)(images), plain(images))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_a_network_built_in_a_type_is_one_that_was_converted_to_it(dtype):
    options = {"num_classes": 3, "depths": [1, 1, 1, 1], "drop_block_stages": (-1,)}
    torch.manual_seed(0)
    expected = backbones.create_model("csresnext50_ws_mi2", **options).to(dtype)
    torch.manual_seed(0)
    found = backbones.create_model("csresnext50_ws_mi2", dtype=dtype, device="cpu", **options)
    torch.testing.assert_close(found.state_dict(), expected.state_dict(), rtol=0, atol=0)
    assert dict(found.named_buffers())["stages.3.drop.progress"].dtype == dtype


@pytest.mark.parametrize("name", backbones.list_models())
def test_a_network_on_the_meta_device_draws_nothing_and_has_the_same_weights(name):
    state = torch.get_rng_state()
    with torch.device("meta"):
        expected = backbones.create_model(name)
    found = backbones.create_model(name, device="meta", dtype=torch.float16)
    assert torch.equal(torch.get_rng_state(), state)
    assert {p.device.type for p in [*found.parameters(), *found.buffers()]} == {"meta"}
    assert {p.dtype for p in found.parameters()} == {torch.float16}
    shapes = [{key: value.shape for key, value in model.state_dict().items()} for model in (found, expected)]
    assert shapes[0] == shapes[1]


def test_a_type_that_is_not_floating_is_refused():
    with pytest.raises(TypeError, match="floating point"):
        backbones.create_model("csresnext50", device="meta", dtype=torch.int8)
