import pytest
import timm.layers
import torch
from torch.fx import symbolic_trace
from torchvision.models.feature_extraction import create_feature_extractor

from backbones.layers.drop_path import DropPath, drop_path_rates


def test_a_sample_is_zero_or_scaled_up_as_a_whole():
    torch.manual_seed(0)
    y = DropPath(0.25).train()(torch.ones(4000, 2, 3, 3)).flatten(1)
    kept = y[:, 0] != 0
    assert torch.equal(y, kept[:, None].expand(-1, 18) / 0.75)
    assert kept.float().mean().item() == pytest.approx(0.75, abs=4 * (0.75 * 0.25 / 4000) ** 0.5)


@pytest.mark.parametrize("training", [True, False])
def test_it_is_timms_layer(training):
    ours, theirs, x = DropPath(0.5).train(training), timm.layers.DropPath(0.5).train(training), torch.randn(8, 3, 2, 2)
    torch.manual_seed(1)
    expected = theirs(x)
    torch.manual_seed(1)
    assert torch.equal(ours(x), expected)
    assert isinstance(ours, timm.layers.DropPath)


def test_a_graph_scales_what_it_keeps_also_where_unused_nodes_are_removed():
    layers = torch.nn.Sequential(DropPath(0.5), torch.nn.Identity()).train()
    extracted = create_feature_extractor(layers, ["1"]).train()
    for graph in (symbolic_trace(layers), lambda x: extracted(x)["1"]):
        assert set(graph(torch.ones(64, 1)).flatten().tolist()) == {0.0, 2.0}


@pytest.mark.parametrize("depths", [(3, 3, 5, 2), (1, 2, 8, 8, 4), (1,)])
def test_the_chances_are_those_of_timm(depths):
    expected = timm.layers.calculate_drop_path_rates(0.3, list(depths), stagewise=False)
    assert drop_path_rates(0.3, sum(depths)) == pytest.approx(expected)
