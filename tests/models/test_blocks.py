import copy
from contextlib import ExitStack
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.modules import module as torch_module

from backbones.layers import Maxout
from backbones.layers.norm_act import set_recompute
from backbones.models.blocks import create_block, create_shortcut
from backbones.models.spec import Block, Fusion, Stage
from tests.layers.operator_calls import Calls

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


def run_step(block, sources):
    """Return value, gradients and statistics of one step."""
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(4, c, 5, 3, generator=generator).double().requires_grad_() for c in sources]
    y = block(*inputs)
    leaves = [*inputs, *block.parameters()]
    return y.detach(), torch.autograd.grad(y.square().sum(), leaves), dict(block.named_buffers())


def create_double(kind, *, sources=(8, 6), maxout=False, weights="per_channel"):
    torch.manual_seed(0)
    normalization = "none" if weights == "none" else "softmax"
    fusion = Fusion("stage", weights, normalization)
    block = create_block(Block(kind), STAGE, sources, act="mish", fusion=fusion, maxout=maxout)
    return block.double().train()


@pytest.mark.parametrize("merge", ["none", "per_feature", "per_channel", "maxout"])
@pytest.mark.parametrize("kind", ["bottleneck", "darknet"])
def test_recomputation_changes_no_value_gradient_or_statistic(kind, merge):
    weights = "none" if merge == "maxout" else merge
    block = create_double(kind, maxout=merge == "maxout", weights=weights)
    plain = copy.deepcopy(block)
    set_recompute(plain, on=False)
    torch.testing.assert_close(run_step(block, (8, 6)), run_step(plain, (8, 6)))


@pytest.mark.parametrize("kind", ["bottleneck", "darknet"])
def test_the_last_normalization_of_a_block_is_computed_with_its_shortcut(kind):
    block = create_double(kind)
    with Calls() as calls:
        block(torch.randn(4, 8, 5, 3).double(), torch.randn(4, 6, 5, 3).double())
    assert calls.own == ["batch_statistics", "norm_merge"] * len(block.convs)


WATCHED = ("convs", "convs.0.act", "convs.2", "convs.2.conv", "convs.2.bn", "convs.2.act", "drop_path", "shortcut")
KINDS = ("forward_hook", "forward_pre_hook", "full_backward_hook", "full_backward_pre_hook")


def note(seen: list[bool]) -> Any:
    """Return a hook of any kind that notes whether it gets tensors only."""

    def hook(_module: nn.Module, *values: Any) -> None:
        flat = [x for each in values for x in (each if isinstance(each, tuple) else (each,))]
        seen.append(all(x is None or isinstance(x, torch.Tensor) for x in flat))

    return hook


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [*WATCHED, "shortcut.act"])
def test_a_hook_runs_once_with_maps_and_changes_nothing(name, kind):
    block, seen = create_double("bottleneck"), []
    expected = run_step(copy.deepcopy(block), (8, 6))
    getattr(block.get_submodule(name), f"register_{kind}")(note(seen))
    torch.testing.assert_close(run_step(block, (8, 6)), expected)
    assert seen == [True]


@pytest.mark.parametrize("kind", KINDS)
def test_a_hook_for_all_modules_sees_each_of_them(kind):
    block, seen = create_double("bottleneck"), []
    expected = run_step(copy.deepcopy(block), (8, 6))
    with ExitStack() as stack:
        stack.callback(getattr(torch_module, f"register_module_{kind}")(note(seen)).remove)
        torch.testing.assert_close(run_step(block, (8, 6)), expected)
    assert seen == [True] * len(list(block.modules()))
