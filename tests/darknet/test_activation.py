import math

import pytest
import torch

from backbones.darknet.activation import darknet_activation
from backbones.darknet.options import ACTIVATIONS

X = [-5.0, -2.5, -1.0, -0.25, 0.0, 0.5, 1.5, 3.0, 4.5, 7.0]


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


FORMULAS = {
    "linear": lambda x: x,
    "relu": lambda x: max(x, 0),
    "leaky": lambda x: x if x > 0 else 0.1 * x,
    "mish": lambda x: x * math.tanh(math.log1p(math.exp(x))),
    "swish": lambda x: x * sigmoid(x),
    "logistic": sigmoid,
    "loggy": lambda x: 2 * sigmoid(x) - 1,
    "tanh": math.tanh,
    "elu": lambda x: x if x >= 0 else math.exp(x) - 1,
    "selu": lambda x: 1.0507 * (x if x >= 0 else 1.6732 * (math.exp(x) - 1)),
    "gelu": lambda x: x / 2 * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "relu6": lambda x: min(max(x, 0), 6),
    "relie": lambda x: x if x > 0 else 0.01 * x,
    "ramp": lambda x: max(x, 0) + 0.1 * x,
    "hardtan": lambda x: min(max(x, -1), 1),
    "hard_mish": lambda x: x if x > 0 else (x * x / 2 + x if x > -2 else 0),
    "lhtan": lambda x: 0.001 * x if x < 0 else (0.001 * (x - 1) + 1 if x > 1 else x),
    "plse": lambda x: 0.01 * (x + 4) if x < -4 else (0.01 * (x - 4) + 1 if x > 4 else 0.125 * x + 0.5),
    "stair": lambda x: math.floor(x / 2) if math.floor(x) % 2 == 0 else x - math.floor(x) + math.floor(x / 2),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation_is_its_formula(name):
    expected = torch.tensor([float(FORMULAS[name](x)) for x in X])
    assert torch.allclose(darknet_activation(name)(torch.tensor(X)), expected, atol=1e-6)
