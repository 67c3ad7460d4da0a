"""Weight decay reaches convolution and classifier weights, and nothing else."""

import pytest
import torch

import backbones
from backbones.errors import UserError
from backbones.layers import WeightedShortcut
from backbones.recipe import Optim
from backbones.training.optim import create_optimizer, load_optimizer, save_optimizer, split_parameters


@pytest.mark.parametrize("name", ["csresnext50_ws_mi2", "test_resnet"])
def test_only_weights_of_convolutions_and_the_classifier_decay(name):
    model = backbones.create_model(name, num_classes=3)
    decayed, others = split_parameters(model)
    names = {id(parameter): key for key, parameter in model.named_parameters()}
    assert all(names[id(p)].endswith("weight") and p.ndim in (2, 4) for p in decayed)
    assert not [names[id(p)] for p in others if p.ndim == 4]
    assert len(decayed) + len(others) == len(names)
    assert any("fc.weight" in names[id(p)] for p in decayed)


def test_fusion_weights_per_channel_do_not_decay_though_they_are_a_matrix():
    shortcut = WeightedShortcut((4, 4), weights_type="per_channel", normalization="softmax")
    decayed, others = split_parameters(shortcut)
    assert (len(decayed), len(others)) == (0, 1)
    assert others[0].shape == (2, 4)


def test_three_steps_follow_darknets_update_rule():
    """darknet, in sums over a batch of 1: u += -decay w (weights only) - gradient; w += lr u; u *= momentum."""
    torch.manual_seed(0)
    layer = torch.nn.Linear(3, 2).double()
    optimizer = create_optimizer(layer, Optim(momentum=0.9, weight_decay=0.01), lr=0.1)
    weight, bias = layer.weight.detach().clone(), layer.bias.detach().clone()
    u_weight, u_bias = torch.zeros_like(weight), torch.zeros_like(bias)
    x = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    for _ in range(3):
        optimizer.zero_grad()
        layer(x).pow(2).sum().mul(0.5).backward()
        optimizer.step()
        error = weight @ x + bias
        u_weight += -0.01 * weight - error[:, None] * x
        u_bias += -error
        weight, bias = weight + 0.1 * u_weight, bias + 0.1 * u_bias
        u_weight, u_bias = 0.9 * u_weight, 0.9 * u_bias
    assert torch.allclose(layer.weight, weight)
    assert torch.allclose(layer.bias, bias)


def test_a_frozen_parameter_is_left_out():
    layer = torch.nn.Linear(3, 2)
    layer.bias.requires_grad_(False)
    assert len(create_optimizer(layer, Optim(), lr=0.1).param_groups) == 1


def test_a_resumed_optimizer_keeps_its_momentum_but_goes_by_the_recipe():
    layer = torch.nn.Linear(3, 2)
    old = create_optimizer(layer, Optim(momentum=0.9, weight_decay=0.1), lr=0.1)
    layer(torch.ones(3)).sum().backward()
    old.step()
    new = create_optimizer(layer, Optim(momentum=0.5, weight_decay=0.2), lr=0.3)
    load_optimizer(new, save_optimizer(old))
    assert [(group["momentum"], group["weight_decay"]) for group in new.param_groups] == [(0.5, 0.2), (0.5, 0.0)]
    assert torch.equal(new.state[layer.weight]["momentum_buffer"], old.state[layer.weight]["momentum_buffer"])


def trained(optimizer: torch.optim.Optimizer, layer: torch.nn.Module) -> torch.optim.Optimizer:
    layer(torch.ones(3)).sum().backward()
    optimizer.step()
    return optimizer


def test_the_state_of_sgd_is_refused_by_another_optimizer():
    """Torch itself loads it without a word."""
    layer = torch.nn.Linear(3, 2)
    sgd = trained(create_optimizer(layer, Optim(), lr=0.1), layer)
    adam = torch.optim.AdamW([{"params": [layer.weight]}, {"params": [layer.bias]}])
    for state in (save_optimizer(sgd), sgd.state_dict()):  # the second as version 0.1 wrote it
        with pytest.raises(UserError, match=r"the checkpoint has the state of SGD .* the recipe asks for AdamW"):
            load_optimizer(adam, state)
    assert not adam.state


def test_the_state_of_other_groups_is_refused():
    layer = torch.nn.Linear(3, 2)
    sgd = trained(create_optimizer(layer, Optim(), lr=0.1), layer)
    with pytest.raises(UserError, match=r"groups of \[1, 1\] parameters, .* groups of \[2\]"):
        load_optimizer(torch.optim.SGD(layer.parameters(), lr=0.1), save_optimizer(sgd))


def test_a_state_of_version_0_1_is_taken():
    layer = torch.nn.Linear(3, 2)
    old, new = (create_optimizer(layer, Optim(), lr=0.1) for _ in range(2))
    load_optimizer(new, trained(old, layer).state_dict())
    assert torch.equal(new.state[layer.bias]["momentum_buffer"], old.state[layer.bias]["momentum_buffer"])
