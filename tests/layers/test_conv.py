import math

import pytest
import torch

from backbones.layers import ConvNormAct, darknet_uniform_

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
