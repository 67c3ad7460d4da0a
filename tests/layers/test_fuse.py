import pytest
import torch
from torch import nn

import backbones
from backbones.layers import ConvNormAct, WeightedShortcut
from backbones.layers.fuse import fuse


def lived_in(unit: ConvNormAct) -> ConvNormAct:
    """Give the normalization statistics that are not those of a fresh layer."""
    nn.init.uniform_(unit.bn.weight, 0.5, 1.5)
    nn.init.uniform_(unit.bn.bias, -1, 1)
    unit.bn.running_mean = torch.rand(unit.bn.num_features)
    unit.bn.running_var = torch.rand(unit.bn.num_features) + 0.5
    return unit


def test_a_folded_convolution_computes_the_same_without_normalization():
    torch.manual_seed(0)
    unit = lived_in(ConvNormAct(4, 8, kernel=3, groups=2)).eval()
    fused, x = fuse(unit), torch.randn(2, 4, 5, 5)
    assert torch.allclose(fused(x), unit(x), atol=1e-5)
    assert isinstance(fused.bn, nn.Identity)
    assert isinstance(unit.bn, nn.BatchNorm2d), "the original stays as it is"


@pytest.mark.parametrize("weights_type", ["none", "per_feature", "per_channel"])
@pytest.mark.parametrize("normalization", ["relu", "softmax", "sigmoid"])
def test_a_folded_shortcut_computes_the_same_without_normalization(weights_type, normalization):
    norm = "none" if weights_type == "none" else normalization
    shortcut = WeightedShortcut((3, 2, 4), weights_type=weights_type, normalization=norm)
    if shortcut.weight is not None:
        nn.init.uniform_(shortcut.weight, -0.5, 1.5)
    fused = fuse(shortcut)
    inputs = [torch.randn(2, width, 4, 4) for width in (3, 2, 4)]
    assert fused.normalization == "none"
    assert torch.allclose(fused(*inputs), shortcut(*inputs))


@pytest.mark.parametrize("weights", ["per_feature", "per_channel"])
@pytest.mark.parametrize("normalization", ["relu", "softmax"])
def test_shares_are_the_ones_that_darknet_folds(recorded, close_to_scale, weights, normalization):
    arrays = recorded(f"ws_{weights}_{normalization}_fused")
    for index in (4, 6, 8):
        raw, expected = arrays.layer(index)["weights"], arrays.layer(index, "fused")["weights"]
        shortcut = WeightedShortcut((raw.shape[1],) * len(raw), weights_type=weights, normalization=normalization)
        shortcut.weight = nn.Parameter(raw)
        shortcut.reparameterize()
        close_to_scale(shortcut.weight, expected)


def test_a_fused_network_is_in_evaluation_mode():
    assert not fuse(nn.Sequential(ConvNormAct(3, 4, kernel=1))).training


@pytest.mark.parametrize("name", ["cspdarknet53", "darknet53", "resnet18"])
@torch.no_grad()
def test_another_library_s_network_is_never_broken(name):
    """timm's BatchNormAct2d is a BatchNorm2d that holds the activation."""
    model = backbones.create_model(name, num_classes=5).eval()
    images = torch.randn(2, 3, 64, 64)
    assert torch.allclose(fuse(model)(images), model(images), atol=1e-5)
