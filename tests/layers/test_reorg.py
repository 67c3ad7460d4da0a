import numpy as np
import pytest
import torch
import torch.nn.functional as F

from backbones.layers.reorg import (
    DilatedReorg3d,
    PaddedReorg3d,
    Reorg3d,
    inverse_reorg3d,
    padded_reorg3d,
    reorg,
    reorg3d,
    reversed_reorg3d,
)

DARKNET = {
    ("reorg", 0): ("input", reorg3d, 2),
    ("reorg", 2): ("out/001", reversed_reorg3d, 2),
    ("reorg", 3): ("out/002", reorg, 2),
    ("reorg", 5): ("out/004", reorg3d, 1),
    ("reorg_old", 0): ("input", reorg, 2),
    ("reorg_old", 2): ("out/001", reorg3d, 2),
    ("reorg_old", 3): ("out/002", inverse_reorg3d, 2),
}


@pytest.mark.parametrize("case", DARKNET, ids=str)
def test_each_form_matches_darknet_exactly(recorded, case):
    name, layer = case
    source, function, stride = DARKNET[case]
    run = recorded(name)
    assert torch.equal(function(run[source], stride), run[f"out/{layer:03d}"])


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_the_inverse_undoes_reorg3d(stride):
    x = torch.randn(2, 5, 6, 12)
    assert torch.equal(inverse_reorg3d(reorg3d(x, stride), stride), x)


@pytest.mark.parametrize("stride", [2, 3])
def test_reorg3d_is_pixel_unshuffle_with_another_order_of_channels(stride):
    x = torch.randn(2, 5, 6, 12)
    order = torch.arange(5 * stride**2).reshape(5, stride**2).T.flatten()
    assert torch.equal(reorg3d(x, stride), F.pixel_unshuffle(x, stride)[:, order])


def test_darknets_reverse_is_not_the_inverse():
    x = torch.randn(1, 16, 4, 4)
    assert not torch.equal(reversed_reorg3d(reorg3d(x, 2), 2), x)


def test_the_module_is_the_function():
    x = torch.randn(1, 2, 4, 6)
    assert torch.equal(Reorg3d(2)(x), reorg3d(x, 2))
    assert torch.equal(PaddedReorg3d(4)(x), padded_reorg3d(x, 4))


@pytest.mark.parametrize("size", [(6, 4), (5, 8), (7, 5)])
def test_a_padded_reorg3d_reads_zeros_outside(size):
    x = torch.randn(2, 3, *size)
    result = padded_reorg3d(x, 2)
    assert result.shape[2:] == (-(-size[0] // 2), -(-size[1] // 2))
    for (n, channel, row, column), value in np.ndenumerate(result.numpy()):
        (dy, dx), c = divmod(channel // 3, 2), channel % 3
        inside = 2 * row + dy < size[0] and 2 * column + dx < size[1]
        assert value == (x[n, c, 2 * row + dy, 2 * column + dx] if inside else 0)


@pytest.mark.parametrize("dilation", [1, 2, 4])
def test_a_dilated_reorg3d_has_the_cells_of_the_padded_one_on_the_coarse_grid(dilation):
    x = torch.randn(1, 3, 11, 13)
    result = DilatedReorg3d(dilation)(x)
    assert result.shape == (1, 12, 11, 13)
    coarse = padded_reorg3d(x[..., ::dilation, ::dilation], 2)
    assert torch.equal(result[..., :: 2 * dilation, :: 2 * dilation], coarse)


@pytest.mark.parametrize(
    ("function", "shape", "message"),
    [
        (reorg3d, (1, 4, 5, 4), "height 5 is not divisible by 2"),
        (reorg3d, (1, 4, 4, 7), "width 7 is not divisible by 2"),
        (inverse_reorg3d, (1, 6, 4, 4), "channels 6 is not divisible by 4"),
        (reorg, (1, 3, 4, 4), "channels 3 is not divisible by 4"),
        (reversed_reorg3d, (1, 8, 4, 4), "channels 8 is not divisible by 16"),
    ],
)
def test_sizes_that_do_not_divide_are_refused(function, shape, message):
    with pytest.raises(ValueError, match=message):
        function(torch.zeros(shape), 2)


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("function", [reorg3d, inverse_reorg3d, padded_reorg3d])
def test_channels_last_stays_with_the_same_values_and_gradients(function, stride):
    x = torch.randn(2, 36, 6, 12, requires_grad=True)
    last = x.detach().to(memory_format=torch.channels_last).requires_grad_()
    y, y_last = function(x, stride), function(last, stride)
    assert torch.equal(y, y_last)
    assert y_last.is_contiguous(memory_format=torch.channels_last)
    assert y.is_contiguous()
    gradient = torch.randn_like(y_last)
    (of_x,), (of_last,) = torch.autograd.grad(y, x, gradient), torch.autograd.grad(y_last, last, gradient)
    assert torch.equal(of_x, of_last)
