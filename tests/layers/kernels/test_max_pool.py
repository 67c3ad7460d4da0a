"""The kernels of the 2x2 max pool, in Triton's interpreter, against torch's."""

import pytest
import torch
import torch.nn.functional as F

from tests.canaries import fence, fence_allocations
from tests.layers.kernels.float64 import make_map

pytestmark = pytest.mark.interpreter

SHAPES = {
    "even": (2, 8, 4, 6),
    "odd sides and channels": (3, 7, 5, 3),
    "two blocks of channels": (1, 67, 3, 4),
    "1x1 maps": (2, 5, 1, 1),
    "many rows": (2, 3, 33, 71),
}
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
ALL = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)


def pool(launch, x):
    fenced = fence(x)
    with fence_allocations() as allocated:
        largest, place = launch.max_pool_2x2(fenced.tensor)
    assert all(each.is_intact() for each in (fenced, *allocated))
    return largest, place


def unpool(launch, gradient, place, height, width):
    fences = [fence(gradient), fence(place)]
    with fence_allocations() as allocated:
        of_x = launch.max_pool_2x2_backward(*(each.tensor for each in fences), height, width)
    assert all(each.is_intact() for each in fences + allocated)
    return of_x


@ALL
@DTYPES
def test_the_largest_cells_are_those_of_torch(launch, shape, dtype):
    x = make_map(shape, dtype, torch.Generator().manual_seed(0))
    assert torch.equal(pool(launch, x)[0], F.max_pool2d(x.float(), 2, ceil_mode=True).to(dtype))


@ALL
@DTYPES
def test_the_gradient_is_that_of_torch(launch, shape, dtype):
    generator = torch.Generator().manual_seed(0)
    x = make_map(shape, dtype, generator).float().requires_grad_()
    pooled = F.max_pool2d(x, 2, ceil_mode=True)
    gradient = make_map(tuple(pooled.shape), dtype, generator)
    pooled.backward(gradient.float())
    _, place = pool(launch, x.detach().to(dtype))
    assert torch.equal(unpool(launch, gradient, place, *shape[2:]).float(), x.grad)


def test_a_slice_of_the_channels_of_a_wider_map(launch):
    generator = torch.Generator().manual_seed(0)
    x = make_map((2, 19, 5, 3), torch.float32, generator)[:, 3:10]
    gradient = make_map((2, 19, 3, 2), torch.float32, generator)[:, 4:11]
    largest, place = pool(launch, x)
    assert torch.equal(largest, F.max_pool2d(x, 2, ceil_mode=True))
    dense = gradient.contiguous(memory_format=torch.channels_last)
    assert torch.equal(unpool(launch, gradient, place, 5, 3), unpool(launch, dense, place, 5, 3))


def test_of_equal_cells_the_first_one_gets_the_gradient(launch):
    x = torch.zeros(1, 1, 2, 2).to(memory_format=torch.channels_last)
    _, place = pool(launch, x)
    assert unpool(launch, torch.ones(1, 1, 1, 1), place, 2, 2).ravel().tolist() == [1, 0, 0, 0]


def test_nan_is_the_largest_as_in_torch(launch):
    x = make_map((1, 3, 4, 4), torch.float32, torch.Generator().manual_seed(0))
    x[0, 1, 1, 2] = torch.nan
    largest, place = pool(launch, x)
    assert torch.equal(largest.isnan(), F.max_pool2d(x, 2).isnan())
    assert place[0, 1, 0, 1] == 2
