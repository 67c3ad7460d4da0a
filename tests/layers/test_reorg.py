import pytest
import torch
import torch.nn.functional as F

from backbones.layers.reorg import Reorg3d, inverse_reorg3d, reorg, reorg3d, reversed_reorg3d

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
