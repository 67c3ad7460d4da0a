from typing import get_args

import pytest
import torch
from torch import nn

from backbones.layers.activation import ActivationName, create_activation
from backbones.layers.recomputed.pointwise import (
    Pointwise,
    activate,
    as_pointwise,
    differentiate,
    differentiate_slopes,
    sum_cells,
)


@pytest.mark.parametrize("name", get_args(ActivationName))
def test_every_activation_is_known_and_has_the_value_and_gradients_of_its_module(name):
    module = create_activation(name, 3, inplace=False).double()
    for slope in module.parameters():
        nn.init.uniform_(slope, -1, 1)
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    act = as_pointwise(module)
    y, gradient = module(x), torch.randn_like(x)
    with torch.no_grad():
        torch.testing.assert_close(activate(x.clone(), act), y)
        of_x = differentiate(gradient, x, act)
        of_slopes = differentiate_slopes(gradient, x)
    y.backward(gradient)
    torch.testing.assert_close(of_x, x.grad)
    for slope in module.parameters():
        torch.testing.assert_close(of_slopes if len(slope) > 1 else of_slopes.sum()[None], slope.grad)


def test_the_slope_of_a_leaky_module_is_its_own():
    assert as_pointwise(nn.LeakyReLU(0.3)) == Pointwise("leaky", slope=0.3)


@pytest.mark.parametrize("module", [nn.ReLU6(), nn.GELU(), nn.Sequential(nn.ReLU()), type("Mine", (nn.Mish,), {})()])
def test_another_module_is_not_known_even_if_its_base_is(module):
    assert as_pointwise(module) is None


@pytest.mark.parametrize(
    ("kind", "expected"),
    [(torch.bfloat16, torch.float32), (torch.float32, torch.float32), (torch.double, torch.double)],
)
def test_sums_have_single_precision_at_least(kind, expected):
    x = torch.ones(2, 3, 32, 32, dtype=kind)  # bfloat16 counts to 256 only
    total = sum_cells(x)
    assert total.dtype == expected
    assert total.tolist() == [2048.0] * 3
