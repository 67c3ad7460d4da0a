"""The kernels of the shares, in Triton's interpreter, against plain torch."""

import pytest
import torch

from backbones.layers.recomputed.shares import fusion_shares, fusion_shares_backward
from tests.canaries import fence, fence_allocations

pytestmark = pytest.mark.interpreter

RULES = [("none", "true"), ("relu", "true"), ("softmax", "true"), ("sigmoid", "true")]
RULES += [("none", "darknet"), ("relu", "darknet"), ("softmax", "darknet")]
SHAPES = ((2, 1), (3, 5), (6, 200), (2, 1))
FLOOR = 1e-3


@pytest.mark.parametrize(("normalization", "rule"), RULES)
def test_shares_and_gradients_are_those_of_the_formula(launch, normalization, rule):
    random = torch.Generator().manual_seed(0)
    weights, gradients = ([torch.randn(shape, generator=random) for shape in SHAPES] for _ in range(2))
    fences = [fence(each) for each in (*weights, *gradients)]
    fenced = [each.tensor for each in fences]
    with fence_allocations() as allocated:
        shares = launch.fusion_shares(fenced[:4], normalization, FLOOR)
        of_weights = launch.fusion_shares_backward(fenced[4:], fenced[:4], normalization, FLOOR, rule)
    assert all(each.is_intact() for each in fences + allocated)
    doubles = [[each.double() for each in group] for group in (weights, gradients)]
    torch.testing.assert_close(shares, to_single(fusion_shares(doubles[0], normalization, FLOOR)))
    expected = fusion_shares_backward(doubles[1], doubles[0], normalization, FLOOR, rule)
    torch.testing.assert_close(of_weights, to_single(expected), rtol=1e-4, atol=1e-6)


def to_single(tensors: list[torch.Tensor]) -> list[torch.Tensor]:
    return [tensor.float() for tensor in tensors]
