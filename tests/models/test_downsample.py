import pytest
import torch
import torch.nn.functional as F
from torch import nn

from backbones.layers import ConvNormAct
from backbones.layers.reorg import DilatedReorg3d
from backbones.models.downsample import (
    AddLevel,
    BranchedDownsample,
    ConcatLevel,
    ReorgDownsample,
    create_downsample,
    split_channels,
)
from backbones.models.spec import Backbone, Block, Stage, Stem


def spec(**fields):
    stages = (Stage(1, 4, 8, None), Stage(1, 4, 8, 8), Stage(1, 8, 16, 8))
    return Backbone(Stem(6, kernel=3, stride=2), Block("darknet"), stages, **fields)


@pytest.mark.parametrize("size", [(8, 8), (7, 9)])
@pytest.mark.parametrize("kind", ["concat", "add", "split"])
def test_the_branches_are_a_convolution_and_a_pool_of_the_same_map(kind, size):
    conv = ConvNormAct(8, 8, kernel=3, stride=2).eval()
    x = torch.randn(2, 8, *size)
    convolved, pooled = conv(x), F.max_pool2d(x, 2, ceil_mode=True)
    expected = {"concat": torch.cat([convolved, pooled], 1), "add": convolved + pooled, "split": (pooled, convolved)}
    torch.testing.assert_close(BranchedDownsample(conv, kind)(x), expected[kind])


def test_only_a_branched_downsample_adds_modules():
    assert isinstance(create_downsample(spec(), 0), nn.Identity)
    assert isinstance(create_downsample(spec(), 1), ConvNormAct)
    assert isinstance(create_downsample(spec(downsample="concat"), 1), BranchedDownsample)
    assert isinstance(create_downsample(spec(downsample="concat"), 0), nn.Identity)


@pytest.mark.parametrize(
    ("fields", "channels"),
    [
        ({}, [(6, 6), (8, 8), (8, 8)]),
        ({"downsample": "concat"}, [(6, 6), (16, 16), (16, 16)]),
        ({"downsample": "reorg3d"}, [(6, 6), (8, 8), (8, 8)]),
        ({"downsample": "add"}, [(6, 6), (8, 8), (8, 8)]),
        ({"downsample": "split"}, [(6, 6), (8, 8), (8, 8)]),
        ({"pyramid": "avgpool"}, [(6, 6), (11, 11), (11, 11)]),
        ({"pyramid": "conv_add"}, [(6, 6), (8, 8), (8, 8)]),
        ({"pyramid": "reorg3d"}, [(6, 6), (8 + 3 * 16, 8 + 3 * 16), (8 + 3 * 64, 8 + 3 * 64)]),
        ({"pyramid": "avgpool", "downsample": "concat"}, [(6, 6), (19, 19), (19, 19)]),
    ],
)
def test_both_paths_begin_with_the_channels_after_the_downsample(fields, channels):
    assert [split_channels(spec(**fields), index, 3) for index in range(3)] == channels


def test_a_level_is_concatenated_behind_the_map_or_convolved_and_added():
    x, level = torch.randn(1, 4, 3, 3), torch.randn(1, 3, 3, 3)
    torch.testing.assert_close(ConcatLevel()(x, level), torch.cat([x, level], 1))
    join = AddLevel(4, 3).eval()
    assert isinstance(join.conv.act, nn.Identity)
    torch.testing.assert_close(join(x, level), x + join.conv(level))


@pytest.mark.parametrize("kind", ["concat", "add", "split"])
def test_a_dilated_branch_keeps_the_size_of_both_branches(kind):
    conv = ConvNormAct(8, 8, kernel=3, dilation=2).eval()
    result = BranchedDownsample(conv, kind)(torch.randn(1, 8, 5, 7))
    assert {x.shape[2:] for x in (result if kind == "split" else [result])} == {(5, 7)}


def test_the_first_stage_that_keeps_its_size_has_the_dilation_of_the_stage_before():
    stages = tuple(Stage(1, 8, 8, 8) for _ in range(5))
    dilated = Backbone(Stem(8, kernel=3), Block("darknet"), stages, output_stride=8)
    convs = [create_downsample(dilated, index).conv for index in range(5)]
    assert [conv.stride[0] for conv in convs] == [2, 2, 2, 1, 1]
    assert [conv.dilation[0] for conv in convs] == [1, 1, 1, 1, 2]


@torch.no_grad()
@pytest.mark.parametrize("size", [(8, 8), (7, 9)])
def test_space_to_depth_and_a_1x1_convolution_are_a_2x2_convolution_of_stride_2(size):
    torch.manual_seed(0)
    down = ReorgDownsample(3, 5, act="leaky").eval()
    x = torch.randn(2, 3, *size)
    kernel = down.conv.conv.weight.unflatten(1, (2, 2, 3))[..., 0, 0].permute(0, 3, 1, 2)
    padded = F.pad(x, (0, size[1] % 2, 0, size[0] % 2))
    expected = F.leaky_relu(down.conv.bn(F.conv2d(padded, kernel, stride=2)), 0.1)
    torch.testing.assert_close(down(x), expected)


def test_the_kernel_is_that_of_the_strided_convolutions_alone():
    convs = [create_downsample(spec(downsample_kernel=7), index).conv for index in (1, 2)]
    assert [(conv.kernel_size, conv.stride, conv.padding) for conv in convs] == [((7, 7), (2, 2), (3, 3))] * 2
    assert create_downsample(spec(downsample_kernel=7, downsample="concat"), 1).pool.kernel_size == 2


def test_space_to_depth_is_dilated_where_the_output_stride_takes_the_halving():
    stages = tuple(Stage(1, 8, 8, 8) for _ in range(5))
    dilated = Backbone(Stem(8, kernel=3), Block("darknet"), stages, output_stride=8, downsample="reorg3d")
    reorgs = [create_downsample(dilated, index).reorg for index in range(5)]
    assert [reorg.dilation for reorg in reorgs if isinstance(reorg, DilatedReorg3d)] == [1, 2]
