import pytest
import torch
from torch import nn

from backbones.layers import Maxout
from backbones.models.blocks import create_block, create_shortcut
from backbones.models.spec import Block, Fusion, Stage

STAGE = Stage(2, 8, 16, None, hidden=4)


def describe(block):
    return [
        (unit.conv.in_channels, unit.conv.out_channels, unit.conv.kernel_size[0], unit.conv.groups)
        for unit in block.convs
    ]


def test_a_bottleneck_is_1x1_grouped_3x3_and_a_linear_1x1_with_the_activation_after_the_sum():
    block = create_block(Block("bottleneck", groups=2), STAGE, [6], act="mish", fusion=Fusion())
    assert describe(block) == [(6, 4, 1, 1), (4, 4, 3, 2), (4, 8, 1, 1)]
    assert [type(unit.act) for unit in block.convs] == [nn.Mish, nn.Mish, nn.Identity]
    assert isinstance(block.shortcut.act, nn.Mish)


def test_a_darknet_block_is_1x1_and_3x3_with_a_plain_sum():
    block = create_block(Block("darknet"), STAGE, [8], act="leaky", fusion=Fusion())
    assert describe(block) == [(8, 4, 1, 1), (4, 8, 3, 1)]
    assert [type(unit.act) for unit in block.convs] == [nn.LeakyReLU, nn.LeakyReLU]
    assert isinstance(block.shortcut.act, nn.Identity)


@pytest.mark.parametrize("kind", ["bottleneck", "darknet"])
def test_the_convolutions_see_the_newest_output_and_the_shortcut_adds_them_all(kind):
    fusion = Fusion("stage", "per_channel", "softmax")
    block = create_block(Block(kind), STAGE, [8, 6], act="linear", fusion=fusion).eval()
    newest, oldest = torch.randn(1, 8, 3, 3), torch.randn(1, 6, 3, 3)
    share = 1 / 3.0001
    padded = torch.cat([oldest, torch.zeros(1, 2, 3, 3)], 1)
    expected = share * (block.convs(newest) + newest + padded)
    assert block.sources == 2
    torch.testing.assert_close(block(newest, oldest), expected)


@pytest.mark.parametrize("kind", ["bottleneck", "darknet"])
def test_maxout_takes_the_largest_and_has_no_activation(kind):
    block = create_block(Block(kind), STAGE, [8, 6], act="mish", fusion=Fusion(), maxout=True).eval()
    newest, oldest = torch.randn(1, 8, 3, 3), torch.randn(1, 6, 3, 3)
    expected = torch.maximum(block.convs(newest), newest)
    expected[:, :6] = torch.maximum(expected[:, :6], oldest)
    torch.testing.assert_close(block(newest, oldest), expected)


def test_what_drops_sees_the_result_of_the_shortcut():
    block = create_block(Block("darknet"), STAGE, [8], act="mish", fusion=Fusion(), drop=nn.Hardtanh()).eval()
    x = torch.randn(1, 8, 3, 3) * 9
    torch.testing.assert_close(block(x), (block.convs(x) + x).clamp(-1, 1))


def test_a_shortcut_follows_the_policy():
    fusion = Fusion("stage", "per_feature", "softmax", gradient="darknet", burnin_update=2)
    shortcut = create_shortcut((8, 8), fusion, act="leaky")
    assert (shortcut.weights_type, shortcut.normalization) == ("per_feature", "softmax")
    assert (shortcut.fusion_gradient, shortcut.burnin_update) == ("darknet", 2)
    assert isinstance(shortcut.act, nn.LeakyReLU)
    assert isinstance(create_shortcut((8, 8), fusion, maxout=True), Maxout)


def test_a_dilated_block_spreads_its_3x3_convolution_only():
    for kind in ("bottleneck", "darknet"):
        block = create_block(Block(kind), STAGE, [8], act="mish", fusion=Fusion(), dilation=4)
        assert {unit.conv.dilation[0] for unit in block.convs if unit.conv.kernel_size[0] == 3} == {4}
        assert {unit.conv.dilation[0] for unit in block.convs if unit.conv.kernel_size[0] == 1} == {1}
        assert block(torch.randn(2, 8, 5, 7)).shape == (2, 8, 5, 7)


@pytest.mark.parametrize("weights", ["none", "per_feature"])
@pytest.mark.parametrize("kind", ["bottleneck", "darknet"])
def test_a_sample_whose_residual_is_left_out_keeps_the_other_inputs_with_their_shares(kind, weights):
    fusion = Fusion("stage", weights, "none" if weights == "none" else "softmax")
    block = create_block(Block(kind), STAGE, [8, 8], act="linear", fusion=fusion, drop_path_rate=0.5)
    block.convs.eval()
    newest, oldest = torch.randn(16, 8, 3, 3), torch.randn(16, 8, 3, 3)
    share = 1 if weights == "none" else 1 / 3.0001
    residual, rest = block.convs(newest), newest + oldest
    torch.manual_seed(0)
    result = block(newest, oldest)
    is_kept = [not torch.allclose(y, share * x) for y, x in zip(result, rest, strict=True)]
    scale = torch.tensor(is_kept)[:, None, None, None] / 0.5
    assert 0 < sum(is_kept) < 16
    torch.testing.assert_close(result, share * (scale * residual + rest))


def test_at_inference_and_without_a_chance_nothing_is_left_out_and_nothing_drawn():
    x = torch.randn(4, 8, 3, 3)
    block = create_block(Block("darknet"), STAGE, [8], act="mish", fusion=Fusion(), drop_path_rate=0.5).eval()
    torch.testing.assert_close(block(x), block.convs(x) + x)
    block = create_block(Block("darknet"), STAGE, [8], act="mish", fusion=Fusion()).train()
    state = torch.get_rng_state()
    block(x)
    assert torch.equal(torch.get_rng_state(), state)
