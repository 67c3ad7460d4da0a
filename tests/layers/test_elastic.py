import pytest
import torch
import torch.nn.functional as F
from torch import nn

from backbones.layers import Elastic, reorg3d
from backbones.layers.elastic import ChannelHalf, DoubleSize, double_size

SIZES = [(4, 6), (5, 7), (1, 2)]


def smaller(size):
    return tuple(-(-length // 2) for length in size)


@pytest.mark.parametrize("size", SIZES)
def test_each_cell_is_repeated_and_an_odd_edge_is_cut(size):
    x, like = torch.randn(2, 4, *smaller(size)), torch.empty(2, 1, *size)
    rows, columns = (torch.arange(length) // 2 for length in size)
    assert torch.equal(double_size(x, like, "pool"), x[:, :, rows][..., columns])


def test_channels_become_the_cells_that_reorg3d_took_them_from():
    x = torch.randn(2, 3, 4, 6)
    assert torch.equal(double_size(reorg3d(x, 2), x, "reorg3d"), x)
    assert torch.equal(DoubleSize("reorg3d")(reorg3d(x, 2), x), x)


def test_a_half_is_a_half_of_the_channels():
    x = torch.randn(1, 6, 2, 2)
    assert torch.equal(torch.cat([ChannelHalf(0)(x), ChannelHalf(1)(x)], 1), x)


@pytest.mark.parametrize("size", SIZES)
def test_without_layers_reorg3d_loses_nothing_and_the_pool_keeps_the_largest_of_four(size):
    x = torch.randn(2, 4, *size)
    assert torch.equal(Elastic(nn.Identity(), nn.Identity(), "reorg3d")(x), x)
    first, second = Elastic(nn.Identity(), nn.Identity(), "pool")(x).chunk(2, 1)
    assert torch.equal(first, x[:, :2])
    framed = F.pad(x[:, 2:], (0, size[1] % 2, 0, size[0] % 2), value=-torch.inf)
    largest = framed.unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).amax((3, 5))
    assert torch.equal(second[:, :, ::2, ::2], largest)


@pytest.mark.parametrize("kind", ["pool", "reorg3d"])
def test_the_gradient_is_true(kind):
    torch.manual_seed(0)
    cells = 4 if kind == "reorg3d" else 1
    block = Elastic(nn.Conv2d(2, 3, 3, padding=1), nn.Conv2d(2 * cells, cells, 3, padding=1), kind).double()
    x = torch.randn(1, 4, 3, 4, dtype=torch.double, requires_grad=True)
    assert block(x).shape == (1, 4, 3, 4)
    assert torch.autograd.gradcheck(block, x)


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match=r"elastic='reorg'.*Did you mean reorg3d"):
        DoubleSize("reorg")
