import pytest
import torch
from torch import nn

from backbones.layers import ConvNormAct
from backbones.models.spec import Backbone, Block, Fusion, Stage, Stem
from backbones.models.stages import ConvStem, CrossStage


def build(stage, fusion=None, in_channels=6, **fields):
    spec = Backbone(Stem(in_channels, kernel=3), Block("darknet"), (stage,), fusion=fusion or Fusion(), **fields)
    return CrossStage(spec, 0).eval()


@pytest.mark.parametrize(("pool", "expected"), [(False, (5, 4)), (True, (3, 2))])
def test_the_stem_rounds_odd_sizes_up(pool, expected):
    stem = ConvStem(3, Stem(4, kernel=7, stride=2, pool=pool), act="mish")
    assert stem(torch.randn(1, 3, 9, 7)).shape == (1, 4, *expected)


def test_the_parts_of_a_stage_are_defined_in_darknets_order():
    names = [name for name, _ in build(Stage(1, 4, 8, 6)).named_children()]
    assert names == ["downsample", "cross", "entry", "blocks", "drop", "transition", "merge"]
    names = [name for name, _ in build(Stage(1, 4, 8, 6), Fusion("extra"), pyramid="conv_add").named_children()]
    assert names == ["downsample", "join", "cross", "entry", "blocks", "last_shortcut", "drop", "transition", "merge"]


def test_a_stage_without_downsample_keeps_the_resolution_and_takes_its_input_as_it_is():
    stage = build(Stage(1, 4, 8, None))
    assert isinstance(stage.downsample, nn.Identity)
    assert stage(torch.randn(1, 6, 5, 7)).shape == (1, 8, 5, 7)


def test_a_stage_with_downsample_halves_the_resolution():
    assert build(Stage(1, 4, 8, 12))(torch.randn(1, 6, 5, 8)).shape == (1, 8, 3, 4)


def test_both_paths_split_linearly_only_where_the_spec_says_so():
    for linear in (True, False):
        stage = build(Stage(1, 4, 8, 6, linear_split=linear))
        expected = nn.Identity if linear else nn.Mish
        assert isinstance(stage.cross.act, expected)
        assert isinstance(stage.entry.act, expected)
        assert isinstance(stage.transition.act, nn.Mish)


def test_the_merge_sees_the_transition_before_the_cross_path():
    stage = build(Stage(1, 4, 8, None))
    seen = []
    stage.merge.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    x = torch.randn(1, 6, 5, 5)
    stage(x)
    torch.testing.assert_close(seen[0][:, 4:], stage.cross(x))


def shortcut_inputs(stage, x):
    """Return, for each shortcut, the positions of its inputs among [entry, first shortcut, second, ...]."""
    outputs, wiring = [], []
    stage.entry.register_forward_hook(lambda _m, _i, output: outputs.append(output))

    def record(_module, inputs, output):
        wiring.append([next(k for k, o in enumerate(outputs) if o is x) for x in inputs[1:]])
        outputs.append(output)

    for block in stage.blocks:
        block.shortcut.register_forward_hook(record)
    stage(x)
    return wiring


def test_block_fusion_adds_the_input_of_the_block():
    assert shortcut_inputs(build(Stage(3, 4, 8, None)), torch.randn(1, 6, 4, 4)) == [[0], [1], [2]]


def test_stage_fusion_adds_everything_at_the_end_newest_first():
    stage = build(Stage(3, 4, 8, None, entry=2), Fusion("stage", "per_feature", "relu"))
    assert stage.blocks[-1].shortcut.channels == (4, 4, 4, 2)
    assert shortcut_inputs(stage, torch.randn(1, 6, 4, 4)) == [[0], [1], [2, 1, 0]]


def test_every_convolution_is_a_unit_of_the_same_kind():
    units = [m for m in build(Stage(2, 4, 8, 6)).modules() if isinstance(m, ConvNormAct)]
    assert len(units) == 1 + 2 + 2 * 2 + 2
