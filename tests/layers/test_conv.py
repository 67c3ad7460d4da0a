import math

import pytest
import torch
import torch.nn.functional as F

from backbones.layers import ConvNormAct, darknet_uniform_
from backbones.layers.norm_act import Unmerged

UNITS = {
    0: (3, 8, {"kernel": 3, "act": "leaky"}),
    1: (8, 8, {"kernel": 3, "stride": 2, "groups": 4, "act": "mish"}),
    2: (8, 8, {"kernel": 3, "groups": 8, "act": "swish"}),
    9: (8, 6, {"kernel": 5, "stride": 2, "groups": 2, "act": "mish"}),
}


@pytest.mark.parametrize("layer", UNITS)
def test_a_unit_matches_darknet(recorded, close_to_scale, layer):
    run = recorded("activations")
    in_channels, out_channels, options = UNITS[layer]
    unit = ConvNormAct(in_channels, out_channels, **options).eval()
    run.fill(unit, layer)
    x = run["input"] if layer == 0 else run[f"out/{layer - 1:03d}"]
    with torch.no_grad():
        close_to_scale(unit(x), run[f"out/{layer:03d}"])


@pytest.mark.parametrize("kernel", [1, 3, 5, 7])
@pytest.mark.parametrize("size", [8, 9])
@pytest.mark.parametrize("stride", [1, 2])
def test_odd_kernels_divide_the_size_by_the_stride_rounded_up(kernel, size, stride):
    unit = ConvNormAct(2, 4, kernel=kernel, stride=stride)
    assert unit(torch.randn(2, 2, size, size)).shape == (2, 4, *[math.ceil(size / stride)] * 2)


def test_the_convolution_has_no_bias_and_the_statistics_move_as_in_darknet():
    unit = ConvNormAct(2, 4, kernel=1)
    assert unit.conv.bias is None
    assert (unit.bn.eps, unit.bn.momentum) == (1e-5, 0.01)


def test_weights_start_uniform_within_darknets_bound():
    torch.manual_seed(0)
    weight = ConvNormAct(64, 128, kernel=3, groups=4).conv.weight
    bound = math.sqrt(2 / (3 * 3 * 64 / 4))
    assert 0.99 * bound < weight.abs().max().item() <= bound
    assert weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.02)
    assert weight.mean().item() == pytest.approx(0, abs=0.02 * bound)


def test_a_linear_layers_bound_comes_from_its_inputs():
    weight = darknet_uniform_(torch.empty(500, 32))
    assert 0.99 * 0.25 < weight.abs().max().item() <= 0.25


@pytest.mark.parametrize("act", ["linear", "relu", "leaky", "mish", "swish", "prelu", "prelu_channel"])
def test_training_keeps_the_maps_around_the_convolution_and_vectors(act):
    unit = ConvNormAct(3, 4, kernel=1, act=act)
    maps = []
    x, conv = torch.randn(5, 3, 6, 7, requires_grad=True), unit.conv
    with torch.autograd.graph.saved_tensors_hooks(lambda x: maps.append(x) or x, lambda x: x):
        y = unit(x)
    assert y.requires_grad
    assert [x.shape for x in maps if x.dim() > 2] == [x.shape, conv.weight.shape, (5, 4, 6, 7)]
    torch.testing.assert_close(maps[2], conv(x), msg="the convolution's output, not the normalized map")


@pytest.mark.parametrize("act", ["mish", "leaky", "prelu_channel"])
def test_a_unit_in_training_is_the_convolution_the_normalization_and_the_activation(act):
    unit, x = ConvNormAct(3, 4, kernel=3, act=act).double(), torch.randn(2, 3, 5, 7, dtype=torch.float64)
    slope = torch.full((4,), 0.25 if act == "prelu_channel" else 0.1, dtype=torch.float64)
    y = F.batch_norm(F.conv2d(x, unit.conv.weight, padding=1), None, None, training=True)
    expected = F.mish(y) if act == "mish" else F.prelu(y, slope)
    torch.testing.assert_close(unit(x), expected)


def test_autocast_gives_maps_of_half_precision_and_gradients_of_single_precision():
    torch.manual_seed(0)
    unit, x = ConvNormAct(3, 4, kernel=1), torch.randn(5, 3, 6, 7)
    kept = []
    hooks = torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x)
    with torch.autocast("cpu", torch.bfloat16), hooks:
        y = unit(x)
    y.float().square().sum().backward()
    assert y.dtype == torch.bfloat16
    assert {x.dtype for x in kept if x.dim() > 2} == {torch.bfloat16}
    assert {p.grad.dtype for p in unit.parameters()} == {torch.float32}
    assert unit.bn.running_mean.dtype == torch.float32
    torch.testing.assert_close(y.float(), unit(x), atol=0.05, rtol=0.05)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_a_unit_of_half_precision_trains(kind):
    unit = ConvNormAct(3, 4, kernel=1).to(kind)
    unit(torch.randn(2, 3, 4, 4).to(kind)).sum().backward()
    assert {p.grad.dtype for p in unit.parameters()} == {kind}


def test_a_unit_that_is_watched_switched_off_or_of_another_class_leaves_nothing_to_the_merge():
    class Mine(ConvNormAct):
        """Subclass, which may have another forward."""

    x, watched, off = torch.randn(2, 3, 4, 4), ConvNormAct(3, 3, kernel=1), ConvNormAct(3, 3, kernel=1)
    watched.register_forward_hook(lambda *_: None)
    off.recompute = False
    assert isinstance(ConvNormAct(3, 3, kernel=1).convolve(x), Unmerged)
    for unit in (watched, off, Mine(3, 3, kernel=1), ConvNormAct(3, 3, kernel=1).requires_grad_(False)):
        with torch.set_grad_enabled(unit.conv.weight.requires_grad):
            assert isinstance(unit.convolve(x), torch.Tensor)
