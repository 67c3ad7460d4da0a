import pytest
import torch
import torch.nn.functional as F

from backbones.layers.pooling import (
    DarknetMaxPool2d,
    DilatedMaxPool2d,
    HalvingMaxPool2d,
    LocalAvgPool2d,
    darknet_max_pool2d,
    local_avg_pool2d,
)

MAX = {
    1: (0, 2, 2),
    2: (1, 2, 2),
    4: (3, 3, 2),
    6: (5, 2, 1),
    7: (6, 5, 1),
    8: (7, 2, 2, 0),
    10: (9, 4, 4),
    12: (11, 7, 3),
}
AVERAGE = {0: (None, 2, 2), 1: (0, 2, 2), 3: (2, 3, 2), 5: (4, 4, 4), 7: (6, 4, 4, 0), 9: (8, 3, 1)}
"""Layer: (source layer, size, stride[, padding])."""


@pytest.mark.parametrize("layer", MAX)
def test_max_pooling_matches_darknet(recorded, layer):
    run, (source, *geometry) = recorded("maxpool"), MAX[layer]
    assert torch.equal(darknet_max_pool2d(run[f"out/{source:03d}"], *geometry), run[f"out/{layer:03d}"])


@pytest.mark.parametrize("layer", AVERAGE)
def test_average_pooling_matches_darknet(recorded, close_to_scale, layer):
    run, (source, *geometry) = recorded("local_avgpool"), AVERAGE[layer]
    x = run["input"] if source is None else run[f"out/{source:03d}"]
    close_to_scale(local_avg_pool2d(x, *geometry), run[f"out/{layer:03d}"])


@pytest.mark.parametrize("size", [(7, 8), (5, 5), (8, 8)])
def test_two_by_two_is_torchs_pooling_rounded_up(size):
    x = torch.randn(2, 3, *size)
    assert torch.equal(darknet_max_pool2d(x, 2), F.max_pool2d(x, 2, ceil_mode=True))
    expected = F.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False)
    torch.testing.assert_close(local_avg_pool2d(x, 2), expected)


def test_four_by_four_starts_one_cell_outside():
    row = torch.arange(1.0, 9.0).reshape(1, 1, 1, 8).expand(1, 1, 8, 8)
    assert darknet_max_pool2d(row, 4)[0, 0, 0].tolist() == [3, 7]
    assert local_avg_pool2d(row, 4)[0, 0, 0].tolist() == [2.0, 5.5]


def test_the_modules_are_the_functions():
    x = torch.randn(1, 2, 9, 7)
    assert torch.equal(DarknetMaxPool2d(3, 2)(x), darknet_max_pool2d(x, 3, 2))
    assert torch.equal(LocalAvgPool2d(2)(x), local_avg_pool2d(x, 2))


def test_each_cell_of_a_window_gets_its_share_of_the_gradient():
    x = torch.zeros(1, 1, 3, 3, requires_grad=True)
    local_avg_pool2d(x, 2).sum().backward()
    assert x.grad[0, 0].tolist() == [[0.25, 0.25, 0.5], [0.25, 0.25, 0.5], [0.5, 0.5, 1.0]]


@pytest.mark.parametrize(
    ("geometry", "message"),
    [
        ((0,), "size=0, stride=0 must be at least 1"),
        ((2, 0), "stride=0 must be at least 1"),
        ((2, 2, 3), r"padding=3 must lie in \[0, 2\]"),
        ((2, 2, -1), "padding=-1"),
        ((9, 1, 0), "does not fit into a length of 4"),
    ],
)
def test_windows_that_cannot_be_are_refused(geometry, message):
    with pytest.raises(ValueError, match=message):
        darknet_max_pool2d(torch.zeros(1, 1, 4, 4), *geometry)


@pytest.mark.parametrize("dilation", [1, 2, 4])
@pytest.mark.parametrize("size", [(8, 8), (7, 9), (1, 3)])
def test_a_dilated_pool_holds_the_strided_pool_of_its_grid(dilation, size):
    x = torch.randn(2, 3, *size) - 5  # no padding with zeros may win
    pooled = DilatedMaxPool2d(dilation)(x)
    expected = F.max_pool2d(x[:, :, ::dilation, ::dilation], 2, ceil_mode=True)
    assert pooled.shape == x.shape
    assert torch.equal(pooled[:, :, :: 2 * dilation, :: 2 * dilation], expected)


@pytest.mark.parametrize("size", [(6, 4), (5, 7), (1, 1)])
def test_halving_is_torchs_pool_rounded_up_in_every_mode(size):
    pool, x = HalvingMaxPool2d(), torch.randn(2, 3, *size)
    expected = F.max_pool2d(x, 2, ceil_mode=True)
    for training, pool.recompute in ((True, True), (True, False), (False, True)):
        assert torch.equal(pool.train(training)(x), expected)
        with torch.no_grad():
            assert torch.equal(pool(x), expected)


def test_halving_keeps_a_byte_for_each_cell_of_its_result_and_torch_the_map_and_eight():
    pool, x = HalvingMaxPool2d(), torch.randn(2, 3, 8, 8, requires_grad=True)
    kept = {}
    for pool.recompute in (True, False):
        sizes = kept[pool.recompute] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x, sizes=sizes: sizes.append(x.nbytes) or x, lambda x: x):
            pool(x)
    cells = 2 * 3 * 4 * 4
    assert kept == {True: [cells], False: [4 * 4 * cells, 8 * cells]}
