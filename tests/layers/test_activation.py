import math
from typing import get_args

import pytest
import torch
import torch.nn.functional as F

from backbones.layers import ActivationName, create_activation

FORMULAS = {
    "linear": lambda x: x,
    "relu": lambda x: max(x, 0.0),
    "leaky": lambda x: x if x > 0 else 0.1 * x,
    "mish": lambda x: x * math.tanh(math.log1p(math.exp(x))),
    "swish": lambda x: x / (1 + math.exp(-x)),
    "prelu": lambda x: x if x > 0 else 0.25 * x,
    "prelu_channel": lambda x: x if x > 0 else 0.25 * x,
}


@pytest.mark.parametrize("name", get_args(ActivationName))
def test_each_activation_follows_its_formula(name):
    x = torch.linspace(-6, 6, 24).reshape(1, 4, 2, 3)
    expected = torch.tensor([FORMULAS[name](value) for value in x.flatten().tolist()])
    torch.testing.assert_close(create_activation(name, 4)(x.clone()).flatten(), expected)


@pytest.mark.parametrize(("layer", "name", "stride"), [(4, "relu", 1), (5, "linear", 2)])
def test_activations_without_batch_norm_match_darknet(recorded, close_to_scale, layer, name, stride):
    run = recorded("activations")
    values = run.layer(layer)
    x = F.conv2d(run[f"out/{layer - 1:03d}"], values["weights"], values["biases"], stride, padding=1)
    close_to_scale(create_activation(name)(x), run[f"out/{layer:03d}"])


def test_prelu_has_one_slope_and_prelu_channel_one_for_each_channel():
    assert [p.shape for p in create_activation("prelu", 5).parameters()] == [(1,)]
    assert [p.shape for p in create_activation("prelu_channel", 5).parameters()] == [(5,)]


def test_prelu_channel_needs_the_channels():
    with pytest.raises(ValueError, match="channels must be given"):
        create_activation("prelu_channel")


@pytest.mark.parametrize("name", get_args(ActivationName))
def test_only_relu_and_leaky_overwrite_their_input_and_only_if_allowed(name):
    for inplace in (True, False):
        x = torch.full((1, 2, 2, 2), -1.0)
        create_activation(name, 2, inplace=inplace)(x)
        assert (x != -1).any() == (inplace and name in {"relu", "leaky"})


@pytest.mark.parametrize("name", get_args(ActivationName))
def test_the_gradient_is_right_also_in_place(name):
    act = create_activation(name, 2).double()
    x = torch.randn(1, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: act(x * 2), x)


def test_an_unknown_activation_is_refused_with_near_names():
    with pytest.raises(ValueError, match=r"act='swich'.*Did you mean swish"):
        create_activation("swich")
