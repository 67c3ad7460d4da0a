import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import backbones
from backbones.layers import BiFpn, StackedBiFpn, WeightedShortcut
from tests.layers.neck_checks import require_sizes_and_learning, require_true_gradient

DOCS = Path(__file__).parents[2] / "docs" / "variants.md"
SIZES = [(13, 9), (7, 5), (4, 3)]


def maps(*channels):
    return [torch.randn(2, c, *size) for c, size in zip(channels, SIZES, strict=True)]


def written_out(block, p3, p4, p5):
    """The paper's equations for three levels with fresh, equal weights."""

    def mean(*inputs):
        shares = len(inputs) + 1e-4
        return sum(inputs) / shares

    def up(x, like):
        return F.interpolate(x, size=like.shape[2:], mode="nearest")

    def down(x):
        return F.max_pool2d(x, 3, 2, padding=1)

    (top3, top4), (up4, up5) = block.top_down, block.bottom_up
    p4_td = top4.conv(mean(p4, up(p5, p4)))
    p3_out = top3.conv(mean(p3, up(p4_td, p3)))
    p4_out = up4.conv(mean(p4, p4_td, down(p3_out)))
    return [p3_out, p4_out, up5.conv(mean(p5, down(p4_out)))]


@torch.no_grad()
@pytest.mark.parametrize("normalization", ["relu", "softmax"])
def test_a_fresh_block_follows_the_papers_equations(normalization):
    torch.manual_seed(0)
    block = BiFpn([8, 8, 8], 8, normalization=normalization).eval()
    features = maps(8, 8, 8)
    torch.testing.assert_close(block(features), written_out(block, *features))


def test_every_sum_is_a_weighted_shortcut_of_two_or_three_inputs():
    sums = [m for m in BiFpn([8, 8, 8], 8, normalization="softmax").modules() if isinstance(m, WeightedShortcut)]
    assert sorted(len(s.channels) for s in sums) == [2, 2, 2, 3]
    assert {s.normalization for s in sums} == {"softmax"}


def test_weights_decide_what_a_level_takes():
    block = BiFpn([4, 4], 4).eval()
    with torch.no_grad():
        block.bottom_up[0].shortcut.weight.copy_(torch.tensor([[1.0], [-1.0]]))
    large, small = torch.randn(1, 4, 6, 6), torch.randn(1, 4, 3, 3)
    torch.testing.assert_close(block([large, small])[1], block([large * 2, small])[1], atol=0.02, rtol=0.02)


@pytest.mark.parametrize("levels", [2, 3, 5])
def test_any_row_of_levels_keeps_its_sizes_and_every_parameter_learns(levels):
    require_sizes_and_learning(BiFpn([6] * levels, 4), levels, channels=6, width=4)


def test_blocks_can_be_stacked():
    results = nn.Sequential(BiFpn([4, 8, 16], 8), BiFpn([8, 8, 8], 8))(maps(4, 8, 16))
    assert [tuple(r.shape) for r in results] == [(2, 8, *size) for size in SIZES]


@torch.no_grad()
def test_stacked_blocks_follow_the_papers_equations_three_times():
    torch.manual_seed(0)
    stack = StackedBiFpn([8, 8, 8], 8, act="leaky").eval()
    expected = features = maps(8, 8, 8)
    for block in stack:
        expected = written_out(block, *expected)
    assert len(stack) == 3
    torch.testing.assert_close(stack(features), expected)


def test_only_the_first_of_the_stacked_blocks_changes_the_widths():
    stack = StackedBiFpn([4, 8, 16], 8, blocks=2, normalization="softmax", weights_type="per_channel")
    assert [[isinstance(lateral, nn.Identity) for lateral in block.laterals] for block in stack] == [
        [False, True, False], [True, True, True]
    ]  # fmt: skip
    assert {m.weight.shape[1] for m in stack.modules() if isinstance(m, WeightedShortcut)} == {8}
    with pytest.raises(ValueError, match="blocks=0 must be at least 1"):
        StackedBiFpn([4, 4], 4, blocks=0)


def test_the_gradient_of_stacked_blocks_is_true():
    torch.manual_seed(0)
    require_true_gradient(StackedBiFpn([2, 2], 2, blocks=2), ((3, 4), (2, 2)))


@pytest.mark.parametrize("name", backbones.list_models())
def test_it_takes_c3_to_c5_of_every_backbone_at_a_size_that_is_no_multiple_of_32(name):
    with torch.device("meta"):
        model = backbones.create_model(name, features_only=True, out_indices=(-3, -2, -1))
        block = BiFpn(model.feature_info.channels(), 64)
        results = block(model(torch.empty(1, 3, 100, 75)))
    assert [tuple(r.shape) for r in results] == [(1, 64, 13, 10), (1, 64, 7, 5), (1, 64, 4, 3)]


def test_the_example_in_the_docs_runs():
    examples = re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)
    (example,) = [code for code in examples if "import BiFpn\n" in code]
    names = {}
    exec(example, names)
    assert [tuple(p.shape) for p in names["pyramid"]] == [(1, 128, 40, 50), (1, 128, 20, 25), (1, 128, 10, 13)]


def test_a_single_level_and_another_number_of_maps_are_refused():
    with pytest.raises(ValueError, match=r"in_channels=\(4,\): a BiFPN mixes at least two levels"):
        BiFpn([4], 4)
    with pytest.raises(ValueError, match="the BiFPN has 3 levels, not 2"):
        BiFpn([4, 4, 4], 4)(maps(4, 4, 4)[:2])
