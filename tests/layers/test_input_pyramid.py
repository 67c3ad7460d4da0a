import math

import pytest
import torch
import torch.nn.functional as F

from backbones.layers.input_pyramid import InputPyramid, input_pyramid, pyramid_channels
from backbones.layers.reorg import reorg3d


def test_average_levels_of_an_even_image_are_means_of_ever_larger_squares():
    image = torch.randn(2, 3, 32, 64)
    levels = input_pyramid(image, 3)
    for k, level in enumerate(levels, start=1):
        torch.testing.assert_close(level, F.avg_pool2d(image, 2**k))


def test_the_first_levels_match_darknets_chain(recorded, close_to_scale):
    run = recorded("local_avgpool")
    for level, layer in zip(input_pyramid(run["input"], 2), (0, 1), strict=True):
        close_to_scale(level, run[f"out/{layer:03d}"])


def test_reorg3d_levels_keep_every_cell():
    image = torch.randn(1, 3, 8, 8)
    first, second = input_pyramid(image, 2, "reorg3d")
    assert torch.equal(first, reorg3d(image, 2))
    assert torch.equal(second, reorg3d(first, 2))


@pytest.mark.parametrize("kind", ["avgpool", "reorg3d"])
@pytest.mark.parametrize("size", [(50, 71), (64, 64), (33, 1)])
def test_sizes_are_rounded_up_and_channels_as_announced(kind, size):
    for k, level in enumerate(InputPyramid(5, kind)(torch.randn(1, 3, *size)), start=1):
        assert level.shape == (1, pyramid_channels(3, k, kind), *(math.ceil(side / 2**k) for side in size))


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="Did you mean avgpool"):
        InputPyramid(2, "avg_pool")
