"""Evaluation sees a folded copy that computes the same; the network that is trained stays as it is."""

import copy

import pytest
import torch
from torch import nn

from backbones.assembly.folding import Folding, choose_for_evaluation, fill
from backbones.layers import ConvNormAct
from backbones.recipe import Recipe

CPU = torch.device("cpu")


@pytest.fixture
def network() -> nn.Module:
    """A network that is in training, with statistics that are not those of fresh layers."""
    torch.manual_seed(0)
    units = ConvNormAct(3, 8, kernel=3), ConvNormAct(8, 8, kernel=1)
    model = nn.Sequential(*units, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)).train()
    with torch.no_grad():
        model(torch.rand(4, 3, 32, 32))
    return model


@torch.no_grad()
def logits(model: nn.Module) -> torch.Tensor:
    images = torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    return copy.deepcopy(model).eval()(images)


def norms(model: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())


def test_the_copy_has_no_batch_norm_and_the_same_logits_and_the_original_is_untouched(network):
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    folded = choose_for_evaluation(Recipe(), CPU)(network)
    assert norms(folded) == 0 < norms(network)
    torch.testing.assert_close(logits(folded), logits(network), rtol=1e-4, atol=1e-5)
    assert network.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_without_folding_the_network_itself_is_evaluated(network):
    assert choose_for_evaluation(Recipe(fold=False), CPU)(network) is network


def test_an_uncompiled_copy_is_not_kept(network):
    folding = Folding()
    assert folding(network) is not folding(network)
    assert not folding.kept


def test_a_compiled_copy_is_compiled_once_for_each_network_and_gets_the_new_weights(network):
    compiled: list[nn.Module] = []
    folding, other = Folding(compiled.append), copy.deepcopy(network)
    first = folding(network)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(1.1)
        network(torch.rand(4, 3, 32, 32))
    again = folding(network)
    assert again is first is compiled[0]
    torch.testing.assert_close(logits(again), logits(network), rtol=1e-4, atol=1e-5)
    assert folding(other) is compiled[1]
    torch.testing.assert_close(logits(folding(other)), logits(other), rtol=1e-4, atol=1e-5)
    assert len(compiled) == 2


def test_a_compiling_recipe_compiles_what_is_evaluated():
    folding = choose_for_evaluation(Recipe(torchcompile=True), CPU)
    network = nn.Sequential(nn.Linear(2, 2))
    assert isinstance(folding, Folding)
    assert folding.compile is not None
    folding.compile(network)
    assert network._compiled_call_impl is not None


def test_weights_are_not_filled_into_another_network():
    with pytest.raises(ValueError, match="zip"):
        fill(nn.Linear(2, 2), nn.Linear(2, 2, bias=False))
