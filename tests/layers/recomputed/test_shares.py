"""Shares of several shortcuts at once: those, and the gradients, of each shortcut alone through autograd."""

import pytest
import torch

from backbones.layers.recomputed.shares import compute_shares
from backbones.layers.shortcut import effective_weights, with_darknet_gradient

RULES = [("none", "true"), ("relu", "true"), ("softmax", "true"), ("sigmoid", "true")]
RULES += [("none", "darknet"), ("relu", "darknet"), ("softmax", "darknet")]
SHAPES = ((2, 1), (3, 5), (6, 1), (2, 4))
FLOOR = 1e-3


@pytest.fixture
def weights() -> list[torch.Tensor]:
    """Raw weights on both sides of the floor, and one exactly on it."""
    random = torch.Generator().manual_seed(0)
    weights = [torch.randn(shape, generator=random, dtype=torch.float64) for shape in SHAPES]
    weights[1][0, 0] = FLOOR
    return [weight.requires_grad_() for weight in weights]


def alone(weight: torch.Tensor, normalization, rule: str) -> torch.Tensor:
    shares = effective_weights(weight, normalization, floor=FLOOR)
    return shares if rule == "true" else with_darknet_gradient(weight, shares, normalization)


@pytest.mark.parametrize(("normalization", "rule"), RULES)
def test_shares_and_gradients_are_those_of_each_shortcut_alone(weights, normalization, rule):
    expected = [alone(weight, normalization, rule) for weight in weights]
    shares = compute_shares(weights, normalization, FLOOR, rule)
    torch.testing.assert_close(shares, expected, rtol=1e-12, atol=1e-12)
    gradients = [torch.randn_like(weight) for weight in weights]
    derived = [torch.autograd.grad(each, weights, gradients) for each in (shares, expected)]
    torch.testing.assert_close(*derived, rtol=1e-12, atol=1e-12)


def test_shares_without_a_gradient_of_their_own_leave_the_weights_alone(weights):
    shares = compute_shares(weights, "softmax", FLOOR, "true")
    shares[0][0].sum().backward()
    assert [bool(weight.grad.any()) for weight in weights] == [True, False, False, False]
