import pytest
import torch
import torch.nn.functional as F

from backbones.layers.recomputed.max_pool import halve

SIZES = [(6, 4), (5, 7), (1, 1), (1, 4), (3, 2)]
FORMATS = [torch.contiguous_format, torch.channels_last]


def run(pool, x, gradient):
    y = pool(x)
    return y.detach(), torch.autograd.grad(y, x, gradient)[0]


def assert_same_as_torch(x, gradient=None):
    x = x.detach().requires_grad_()
    expected = F.max_pool2d(x, 2, ceil_mode=True)
    gradient = torch.randn_like(expected) if gradient is None else gradient
    ours = run(halve, x, gradient)
    torchs = run(lambda x: F.max_pool2d(x, 2, ceil_mode=True), x, gradient)
    torch.testing.assert_close(ours, torchs, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("size", SIZES)
def test_value_and_gradient_are_those_of_torch_at_any_size(size, memory_format):
    assert_same_as_torch(torch.randn(2, 3, *size).to(memory_format=memory_format))


@pytest.mark.parametrize("memory_format", FORMATS)
def test_equal_cells_nan_and_infinity_win_as_in_torch(memory_format):
    values = torch.tensor([0.0, 1.0, torch.nan, torch.inf, -torch.inf])
    drawn = torch.randint(5, (4, 8, 7, 7), generator=torch.Generator().manual_seed(0))
    assert_same_as_torch(values[drawn].to(memory_format=memory_format))


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_gradient_of_nan_or_infinity_reaches_one_cell(value):
    assert_same_as_torch(torch.randn(1, 2, 4, 4), torch.full((1, 2, 2, 2), value))


def test_it_keeps_one_byte_for_each_cell_of_the_result():
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        halve(torch.randn(2, 3, 7, 8, requires_grad=True))
    assert [(x.shape, x.dtype) for x in kept] == [((2, 3, 4, 4), torch.uint8)]


@pytest.mark.parametrize("memory_format", FORMATS)
def test_the_gradient_has_the_memory_order_of_the_map(memory_format):
    x = torch.randn(2, 3, 7, 8).to(memory_format=memory_format).requires_grad_()
    y, gradient = run(halve, x, torch.randn(2, 3, 4, 4))
    assert y.is_contiguous(memory_format=memory_format)
    assert gradient.is_contiguous(memory_format=memory_format)
