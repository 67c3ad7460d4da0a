"""Networks from cfg texts against what darknet computes for the same text."""

import weakref

import pytest
import torch
from timm.utils.model import reparameterize_model

from backbones.darknet.cfg import parse_cfg
from backbones.darknet.network import DarknetNetwork, load_cfg
from backbones.errors import UserError
from backbones.layers import WeightedShortcut
from backbones.layers.fuse import fuse
from tests.darknet.recordings import assert_close_to_scale

SMALL = ["activations", "head", "local_avgpool", "maxout", "maxpool", "reorg", "reorg_old", "route_groups"]
SHORTCUTS = [
    f"ws_{weights}_{normalization}{suffix}"
    for weights, normalization in (
        ("per_feature", "relu"), ("per_feature", "softmax"), ("per_channel", "relu"), ("per_channel", "softmax"),
    )
    for suffix in ("", "_pos")
]  # fmt: skip


PUBLIC_KINDS = [
    "alexnet_mini", "crop_adjust", "crop_noadjust", "crop_flip_same_size_and_inner", "efficientnet_mini", "table_mix",
    "pj_shortcut_cases", "pj_shortcut_odd",
]  # fmt: skip
"""Sections and options that the public cfgs of classifiers have."""


@pytest.mark.parametrize("name", [*SMALL, *PUBLIC_KINDS, "ws_none_none", *SHORTCUTS])
@torch.no_grad()
def test_every_layer_computes_what_darknet_computes(recording, close_to_scale, name):
    """Recorded on a CPU, where a relu share has no floor."""
    recorded = recording(name)
    network = recorded.network(relu_floor=0.0)
    found = network.outputs(recorded.images())
    assert len(found) == len(recorded.meta["layers"])
    for index, output in enumerate(found):
        if network.inferred_layers[index].kind != "cost":  # darknet leaves it at 0 in inference
            close_to_scale(output, recorded[f"out/{index:03d}"])


@torch.no_grad()
@pytest.mark.parametrize("weights", ["per_feature", "per_channel"])
@pytest.mark.parametrize("normalization", ["relu", "softmax"])
def test_the_fused_network_computes_what_fused_darknet_computes(recording, close_to_scale, weights, normalization):
    recorded = recording(f"ws_{weights}_{normalization}_fused")
    network = fuse(recorded.network())
    assert isinstance(network, DarknetNetwork)
    for index, output in enumerate(network.outputs(recorded.images())):
        close_to_scale(output, recorded[f"out/{index:03d}"])
    for index in (0, 1, 2, 3, 5, 7):
        conv = network.layers[index].conv
        close_to_scale(conv.weight, recorded[f"fused/{index:03d}/weights"])
        close_to_scale(conv.bias, recorded[f"fused/{index:03d}/biases"])


# Sections that no recording has, against formulas of their own.


def seeded(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
@pytest.mark.parametrize(("epsilon", "tolerance"), [(1e-5, 1e-4), (2e-6, 2e-6)])
def test_a_resnet_is_that_of_pjreddies_darknet_up_to_its_own_batch_normalization(recording, epsilon, tolerance):
    """That code divides by sqrt(v) + 1e-6, which is sqrt(v + 2e-6) for variances near 1; ours is sqrt(v + 1e-5)."""
    recorded = recording("pj_resnet_bottleneck")
    network = recorded.network()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eps = epsilon
    for index, output in enumerate(network.outputs(recorded.images())):
        assert_close_to_scale(output, recorded[f"out/{index:03d}"], tolerance=tolerance)


@torch.no_grad()
def test_a_detector_is_a_backbone_up_to_its_head(recording, close_to_scale):
    recorded = recording("det_tiny")
    network = recorded.network()
    close_to_scale(network(recorded.images()), recorded["out/013"])
    assert (len(network.layers), network.num_classes, network.cfg.head.kind) == (14, 0, "yolo")
    first = DarknetNetwork(parse_cfg(recorded.meta["cfg"], layers=11))
    first.load_state_dict({name: value for name, value in network.state_dict().items() if name in first.state_dict()})
    close_to_scale(first.eval()(recorded.images()), recorded["out/010"])


def test_a_detector_is_refused_as_a_classifier(tmp_path):
    file = tmp_path / "a.cfg"
    file.write_text("[net]\nheight=8\nwidth=8\nchannels=3\n[conv]\nfilters=18\n[yolo]\nclasses=1\n")
    assert load_cfg(file)(torch.zeros(1, 3, 8, 8)).shape == (1, 18, 8, 8)
    with pytest.raises(UserError, match=r"a.cfg:7: \[yolo\] makes this a detector.* the 1 layers before it"):
        load_cfg(file, num_classes=18)
    with pytest.raises(UserError, match=r"a.cfg: layers=1 is a backbone"):
        load_cfg(file, num_classes=18, layers=1)


@torch.no_grad()
def test_activation_and_empty_are_sections_of_their_own(network):
    x = seeded(1, 3, 8, 8) - 0.5
    active, same = network("[activation]\nactivation=leaky\n[empty]").outputs(x)
    assert torch.equal(active, torch.where(x > 0, x, 0.1 * x))
    assert torch.equal(same, active)


@torch.no_grad()
def test_reorg_with_extra_is_a_row_of_all_numbers_with_zeros_behind(network):
    """The move "pass" of darknet's Go network: pjreddie's code copies the input and leaves the rest at 0."""
    x = seeded(2, 3, 8, 8)
    net = network("[reorg]\nextra=2\nstride=1")
    assert torch.equal(net(x), torch.cat([x.reshape(2, 192), torch.zeros(2, 2)], 1))
    assert net.num_classes == 194


@torch.no_grad()
def test_scale_channels_multiplies_each_channel_by_its_number(network):
    net = network("[conv]\nfilters=4\nactivation=linear\n[avgpool]\n[scale_channels]\nfrom=0\nactivation=relu")
    features, means, scaled = net.outputs(seeded(2, 3, 8, 8))
    assert torch.allclose(scaled, (features * features.mean((2, 3))[:, :, None, None]).relu())
    assert means.shape == (2, 4, 1, 1)


@torch.no_grad()
def test_scale_channels_can_multiply_each_cell_by_its_number(network):
    text = "[conv]\nfilters=4\nactivation=linear\n[conv]\nactivation=linear\n[scale_channels]\nfrom=0\nscale_wh=1"
    features, gate, scaled = network(text).outputs(seeded(2, 3, 8, 8))
    assert torch.equal(scaled, torch.einsum("nchw,nohw->nchw", features, gate))


@torch.no_grad()
def test_sam_multiplies_two_maps(network):
    text = "[conv]\nfilters=4\nactivation=linear\n[conv]\nfilters=4\nactivation=logistic\n[sam]\nfrom=-2"
    features, gate, result = network(text).outputs(seeded(2, 3, 8, 8))
    assert torch.equal(result, features * gate)


@torch.no_grad()
def test_upsample_repeats_cells_and_its_reverse_adds_them(network):
    x = seeded(2, 3, 8, 8)
    up, back = network("[upsample]\nstride=2\nscale=0.5\n[upsample]\nstride=-2").outputs(x)
    assert up.shape == (2, 3, 16, 16)
    assert torch.equal(up[:, :, 7, 12], x[:, :, 3, 6] / 2)
    assert torch.allclose(back, 2 * x)


@torch.no_grad()
def test_connected_is_a_matrix_and_a_bias(network):
    net = network("[connected]\noutput=5\nactivation=linear")
    x = seeded(2, 3, 8, 8)
    expected = x.reshape(2, 192) @ net.layers[0].fc.weight.T + net.layers[0].fc.bias
    assert torch.allclose(net(x), expected, atol=1e-6)


@torch.no_grad()
def test_batchnorm_normalizes_by_its_statistics(network):
    net = network("[batchnorm]").eval()
    norm = net.layers[0]
    norm.running_mean.fill_(2)
    norm.running_var.fill_(9)
    assert torch.allclose(net(seeded(1, 3, 8, 8)), (seeded(1, 3, 8, 8) - 2) / 3, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize(("mode", "size"), [(1, 4), (2, 4)])
def test_antialiasing_convolves_at_full_size_and_blurs_with_the_stride(network, mode, size):
    net = network(f"[conv]\nfilters=2\nsize=3\npad=1\nstride=2\nactivation=relu\nantialiasing={mode}")
    x = seeded(1, 3, 8, 8)
    conv = net.layers[0].conv
    sharp = torch.relu(torch.nn.functional.conv2d(x, conv.weight, conv.bias, padding=1))
    blurred = net(x)
    assert blurred.shape == (1, 2, size, size)
    if mode == 2:
        assert torch.allclose(blurred[:, :, 1, 3], sharp[:, :, 2:4, 6:8].mean((2, 3)))
    else:
        kernel = torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]]) / 16
        assert torch.allclose(blurred[:, :, 1, 2], (sharp[:, :, 1:4, 3:6] * kernel).sum((2, 3)))


@torch.no_grad()
def test_antialiased_pools_take_the_maximum_at_every_place_first(network):
    x = seeded(1, 3, 8, 8)
    pooled = network("[maxpool]\nsize=2\nstride=2\nantialiasing=2")(x)
    assert torch.allclose(pooled[0, 0, 1, 1], x[0, 0, 2:5, 2:5].unfold(0, 2, 1).unfold(1, 2, 1).amax((2, 3)).mean())


@torch.no_grad()
def test_dilated_kernels_leave_cells_out(network):
    net = network("[conv]\nfilters=1\nsize=3\npad=1\ndilation=2\nactivation=linear")
    x = seeded(1, 3, 8, 8)
    expected = (x[0, :, 1:6:2, 2:7:2] * net.layers[0].conv.weight[0]).sum() + net.layers[0].conv.bias[0]
    assert torch.allclose(net(x)[0, 0, 3, 4], expected, atol=1e-6)


def test_a_convolution_has_different_strides_down_and_across(network):
    assert network("[conv]\nfilters=2\nsize=3\npad=1\nstride_x=2\nstride_y=1")(seeded(1, 3, 8, 8)).shape[2:] == (8, 4)


def test_padding_counts_only_without_pad(network):
    assert network("[conv]\nsize=3\npadding=2")(seeded(1, 3, 8, 8)).shape[2:] == (10, 10)
    assert network("[conv]\nsize=3\npadding=2\npad=1")(seeded(1, 3, 8, 8)).shape[2:] == (8, 8)


@torch.no_grad()
def test_softmax_is_left_out_of_the_logits(network):
    net = network("[avgpool]\n[conv]\nfilters=6\nactivation=linear\n[softmax]\ngroups=2\n[cost]\ntype=sse")
    x = seeded(2, 3, 8, 8)
    logits = net(x)
    assert (net.num_classes, logits.shape) == (6, (2, 6))
    assert torch.allclose(net.outputs(x)[-1].flatten(1), logits.view(2, 2, 3).softmax(2).view(2, 6))


def test_dropout_changes_what_later_layers_read_from_the_layer_before_it(network):
    """Darknet drops in place, so a route past the dropout sees the zeros."""
    net = network("[conv]\nfilters=64\nactivation=logistic\n[dropout]\nprobability=.5\n[route]\nlayers=0").train()
    _, dropped, routed = net.outputs(seeded(1, 3, 8, 8))
    assert routed is dropped
    assert (dropped == 0).any()


def test_dropblock_is_the_layer_of_that_name(network):
    absolute, relative, neither = network(
        "[dropout]\ndropblock=1\ndropblock_size_abs=3\nprobability=.1\n"
        "[dropout]\ndropblock=1\ndropblock_size_rel=.5\n[dropout]\ndropblock=1"
    ).layers
    assert (absolute.block_size, absolute.relative_size, absolute.probability) == (3, None, 0.1)
    assert (relative.relative_size, relative.probability) == (0.5, 0.2)
    assert (neither.block_size, neither.relative_size) == (7, None)


def test_a_maps_memory_is_given_back_after_its_last_use(network):
    alive = []
    net = network("[conv]\nactivation=linear\n" * 4 + "[shortcut]\nfrom=0\n[conv]")
    for layer in net.layers:
        layer.register_forward_hook(lambda _m, _i, output: alive.append(weakref.ref(output)))
    with torch.no_grad():
        result = net(seeded(1, 3, 8, 8))
    assert result is not None
    assert [ref() is not None for ref in alive] == [False] * 5 + [True]


def test_a_cfg_network_trains(network):
    torch.manual_seed(0)
    net = network(
        "[conv]\nbatch_normalize=1\nfilters=8\nsize=3\npad=1\nactivation=mish\n[conv]\nfilters=8\nactivation=linear\n"
        "[shortcut]\nfrom=-2\nweights_type=per_feature\nweights_normalizion=relu\nactivation=leaky\n"
        "[avgpool]\n[conv]\nfilters=2\nactivation=linear\n[softmax]"
    )
    x, labels = torch.rand(16, 3, 8, 8), torch.arange(16) % 2
    x[labels == 1, 0] += 1
    sgd = torch.optim.SGD(net.parameters(), lr=0.3, momentum=0.9)
    for _ in range(40):
        loss = torch.nn.functional.cross_entropy(net(x), labels)
        sgd.zero_grad()
        loss.backward()
        sgd.step()
    assert loss.item() < 0.1
    assert net.layers[2].weight.grad is not None


def test_the_number_of_classes_can_be_demanded(tmp_path):
    file = tmp_path / "a.cfg"
    file.write_text("[net]\nheight=8\nwidth=8\nchannels=3\n[avgpool]\n[conv]\nfilters=6\nactivation=linear\n")
    assert load_cfg(file, num_classes=6).num_classes == 6
    with pytest.raises(UserError, match=r"a.cfg:6: the network has 6 outputs, but 10 classes .* change filters"):
        load_cfg(file, num_classes=10)


def test_gradient_checkpointing_is_refused(network):
    with pytest.raises(UserError, match="grad_checkpointing"):
        network("[conv]").set_grad_checkpointing()


def test_fusion_weights_are_named_for_the_optimizer(network):
    text = "[conv]\n[conv]\n[shortcut]\nfrom=0\nweights_type=per_feature\nweights_normalization=relu"
    assert network(text).no_weight_decay() == {"layers.2.weight"}


def test_each_shortcut_knows_how_long_it_is_held(network):
    weighted = "weights_type=per_feature\nweights_normalization=softmax"
    net = network(
        f"[conv]\nfilters=4\n[conv]\nfilters=4\n[shortcut]\nfrom=-2\n{weighted}\nburnin_update=2\n"
        f"[conv]\nfilters=4\n[shortcut]\nfrom=-2\n{weighted}\n[avgpool]\n[softmax]"
    )
    holds = [module.burnin_update for module in net.modules() if isinstance(module, WeightedShortcut)]
    assert holds == [2, 0]


def test_a_layer_may_read_a_softmax(network):
    net = network("[conv]\nfilters=4\n[avgpool]\n[softmax]\n[conv]\nfilters=3\nactivation=linear\n[softmax]")
    images = torch.rand(2, 3, 8, 8)
    *_, shares, logits, _ = net.eval().outputs(images)
    assert torch.allclose(shares.sum((1, 2, 3)), torch.ones(2))
    assert torch.equal(net(images), logits.flatten(1))


@torch.no_grad()
@pytest.mark.parametrize("name", [*SMALL, *SHORTCUTS[::4]])
def test_a_traced_network_computes_the_same(recording, name):
    recorded = recording(name)
    network = recorded.network().eval()
    images = recorded.images()
    assert torch.equal(torch.fx.symbolic_trace(network)(images), network(images))


@torch.no_grad()
@pytest.mark.parametrize("smooth", [1, 2])
def test_a_traced_blur_computes_the_same(network, smooth):
    net = network(f"[conv]\nfilters=4\nsize=3\nstride=2\npad=1\nantialiasing={smooth}\nactivation=linear").eval()
    images = seeded(2, 3, 9, 8)
    assert torch.equal(torch.fx.symbolic_trace(net)(images), net(images))


@torch.no_grad()
def test_timms_reparameterization_folds_a_cfg(recording):
    recorded = recording("head")
    network, images = recorded.network().eval(), recorded.images()
    folded = reparameterize_model(network)
    assert not [m for m in folded.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    torch.testing.assert_close(folded(images), network(images), atol=1e-5, rtol=1e-4)
