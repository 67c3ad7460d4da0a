"""The kernels of the batch statistics, in Triton's interpreter, against double precision."""

import pytest
import torch

from tests.canaries import fence, fence_allocations
from tests.layers.kernels.float64 import make_map

pytestmark = pytest.mark.interpreter

SHAPES = {
    "one tile": (6, 8, 4, 4),
    "odd channels": (6, 7, 3, 5),
    "two blocks of channels": (6, 67, 2, 3),
    "1x1 maps": (6, 5, 1, 1),
    "many rows": (6, 3, 19, 37),
}


def measure(launch, x, groups, running=(None, None, None), keep=1.0, take=0.0):
    fences = [fence(x), *(fence(each) for each in running if each is not None)]
    others = [each.tensor for each in fences[1:]] or [None, None, None]
    with fence_allocations() as allocated:
        mean, var = launch.batch_statistics(fences[0].tensor, groups, *others, keep, take)
    assert all(each.is_intact() for each in fences + allocated)
    return mean, var, others


def expected(x, groups, correction=0):
    var, mean = torch.var_mean(x.double().unflatten(0, (groups, -1)), (1, 3, 4), correction=correction)
    return mean, var


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_mean_and_variance_of_each_group(launch, shape, groups, dtype):
    x = make_map(shape, dtype, torch.Generator().manual_seed(0))
    mean, var, _ = measure(launch, x, groups)
    for found, right in zip((mean, var), expected(x, groups), strict=True):
        torch.testing.assert_close(found.double(), right, rtol=1e-6, atol=1e-6)


def test_a_slice_of_the_channels_of_a_wider_map(launch):
    x = make_map((4, 19, 3, 5), torch.float32, torch.Generator().manual_seed(0))[:, 3:10]
    mean, var, _ = measure(launch, x, 2)
    for found, right in zip((mean, var), expected(x, 2), strict=True):
        torch.testing.assert_close(found.double(), right, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("programs", [1, 3, 1024])
def test_a_large_mean_costs_no_precision_of_the_variance(launch, programs, monkeypatch):
    monkeypatch.setattr(launch, "PROGRAMS", programs)
    x = make_map((4, 5, 31, 37), torch.float32, torch.Generator().manual_seed(0)) + 3000
    _, var, _ = measure(launch, x, 1)
    torch.testing.assert_close(var.double(), expected(x, 1)[1], rtol=1e-4, atol=0)  # E[x^2] - E[x]^2: 0.1


def test_running_statistics_take_the_sum_over_the_groups_and_unbiased_variances(launch):
    x = make_map((6, 7, 3, 5), torch.float32, torch.Generator().manual_seed(0))
    old = torch.rand(7), torch.rand(7), torch.tensor(5)
    _, _, (mean, var, tracked) = measure(launch, x, 3, old, keep=0.8, take=0.2 / 3)
    right = [each.sum(0) for each in expected(x, 3, correction=1)]
    for found, before, added in zip((mean, var), old, right, strict=False):
        torch.testing.assert_close(found.double(), 0.8 * before.double() + 0.2 / 3 * added, rtol=1e-6, atol=1e-6)
    assert tracked == 8


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # the interpreter computes with numpy, which warns of both
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_nan_and_infinity_spoil_their_channel_only(launch, bad):
    x = make_map((2, 4, 3, 3), torch.float32, torch.Generator().manual_seed(0))
    x[1, 2, 0, 0] = bad
    mean, var, _ = measure(launch, x, 1)
    assert mean.isfinite().tolist() == [[True, True, False, True]]
    assert var.isfinite().tolist() == [[True, True, False, True]]
