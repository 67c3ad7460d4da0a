"""Activations inside kernels, in Triton's interpreter, against torch's in double precision: values and derivatives."""

import pytest
import torch
import torch.nn.functional as F

from backbones.layers.recomputed.operators import norm_merge, norm_merge_backward

pytestmark = pytest.mark.interpreter

FUNCTIONS = {
    "relu": F.relu,
    "leaky": lambda x: F.leaky_relu(x, 0.1),
    "mish": F.mish,
    "swish": F.silu,
}
SPECIAL = torch.tensor(
    [-torch.inf, -1e30, -88.0, -20.5, -1.0, -0.0, 0.0, 1e-6, 1.0, 19.9, 20.1, 1e30, torch.inf, torch.nan]
)


def arguments(x: torch.Tensor, act: str) -> tuple:
    """Activation of a sum with zero, without normalization."""
    return (x, None, None, None, None, 0.0, "linear", 0.0, None, [torch.zeros_like(x)], None, "sum", act, 0.1, None)


@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning", "ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("act", FUNCTIONS)
def test_special_numbers_are_as_in_torch(launch, act):
    x = SPECIAL.reshape(1, 1, 1, -1).expand(1, 2, 1, -1).contiguous(memory_format=torch.channels_last)
    gradient = torch.ones_like(x)
    expected = norm_merge(*arguments(x, act)), norm_merge_backward(gradient, *arguments(x, act))[0]
    value, derived = launch.norm_merge(*arguments(x, act)), launch.norm_merge_backward(gradient, *arguments(x, act))[0]
    torch.testing.assert_close(value, expected[0], equal_nan=True)
    torch.testing.assert_close(derived.nan_to_num(0.5), expected[1].nan_to_num(0.5))


@pytest.mark.parametrize("act", FUNCTIONS)
def test_values_and_derivatives_are_those_of_double_precision(launch, act):
    x = torch.linspace(-25, 25, 1001).reshape(1, 1, 7, 143).contiguous(memory_format=torch.channels_last)
    double = x.double().requires_grad_()
    expected = FUNCTIONS[act](double)
    expected.sum().backward()
    torch.testing.assert_close(launch.norm_merge(*arguments(x, act)), expected.float(), rtol=2e-6, atol=1e-6)
    derived = launch.norm_merge_backward(torch.ones_like(x), *arguments(x, act))[0]
    torch.testing.assert_close(derived, double.grad.float(), rtol=2e-6, atol=1e-6)
