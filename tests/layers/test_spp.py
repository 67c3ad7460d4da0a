import numpy as np
import pytest
import torch

from backbones.layers import Spp, spatial_pyramid_pool
from tests.layers.as_cfg import build, conv, randomize

POOLS = "".join(f"[maxpool]\nstride=1\nsize={size}\n{route}" for size, route in (
    (5, "[route]\nlayers=-2\n"), (9, "[route]\nlayers=-4\n"), (13, "[route]\nlayers=-1,-3,-5,-6\n")
))  # fmt: skip
"""The lines of yolov3-spp.cfg and yolov4.cfg."""


@pytest.mark.parametrize("size", [(14, 15), (3, 2)])
def test_each_pool_takes_the_largest_cell_of_its_window(size):
    x = torch.randn(1, 2, *size)
    result = spatial_pyramid_pool(x)[0].unflatten(0, (4, 2)).numpy()
    for window, maps in zip((13, 9, 5, 1), result, strict=True):
        reach = window // 2
        for (c, row, column), value in np.ndenumerate(maps):
            rows, columns = (slice(max(0, at - reach), at + reach + 1) for at in (row, column))
            assert value == x[0, c, rows, columns].max()


@torch.no_grad()
def test_it_computes_what_the_cfg_of_darknet_computes():
    torch.manual_seed(0)
    neck = randomize(Spp(3, 4, act="leaky"))
    chain = conv(4, 1) + conv(8, 3) + conv(4, 1)
    network = build(chain + POOLS + chain, neck, channels=3, height=16, width=20)
    image = torch.randn(2, 3, 16, 20)
    torch.testing.assert_close(neck(image), network.outputs(image)[-1])


def test_the_gradient_is_true():
    torch.manual_seed(0)
    neck = Spp(2, 2, sizes=(3, 5)).double().eval()
    assert torch.autograd.gradcheck(neck, torch.randn(1, 2, 4, 5, dtype=torch.double, requires_grad=True))


@pytest.mark.parametrize("sizes", [(), (5, 8), (-1,)])
def test_windows_that_have_no_middle_are_refused(sizes):
    with pytest.raises(ValueError, match="an SPP has at least one window, and odd ones only"):
        Spp(4, 4, sizes=sizes)
