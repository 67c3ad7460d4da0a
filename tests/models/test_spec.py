from dataclasses import FrozenInstanceError, replace

import pytest

from backbones.models.spec import Backbone, Block, DropBlock, Fusion, Stage, Stem, with_depths


def test_block_fusion_always_adds_one_earlier_output():
    assert [Fusion().sources(block, depth=4) for block in range(4)] == [1, 1, 1, 1]


def test_stage_fusion_adds_all_earlier_outputs_at_the_last_block():
    assert [Fusion("stage").sources(block, depth=4) for block in range(4)] == [1, 1, 1, 4]


def test_stage_fusion_of_a_single_block_has_nothing_more_to_add():
    assert Fusion("stage").sources(0, depth=1) == 1


def test_dense_fusion_adds_all_earlier_outputs_at_every_block():
    assert [Fusion("dense").sources(block, depth=4) for block in range(4)] == [1, 2, 3, 4]


def test_extra_fusion_leaves_the_blocks_as_they_are():
    assert [Fusion("extra").sources(block, depth=4) for block in range(4)] == [1, 1, 1, 1]


@pytest.mark.parametrize(
    ("fusion", "blocks"),
    [
        (Fusion(), [False] * 4),
        (Fusion("stage", maxout="stage"), [False, False, True, False]),
        (Fusion("extra", maxout="stage"), [False, False, False, True]),
        (Fusion(maxout="all"), [True] * 4),
    ],
)
def test_maxout_stands_at_the_end_of_the_stage_or_everywhere(fusion, blocks):
    assert [fusion.is_maxout(block, depth=3) for block in range(4)] == blocks


def test_drop_block_counts_stages_from_either_end():
    assert [DropBlock((0, -1)).is_in(stage, stages=4) for stage in range(4)] == [True, False, False, True]


def test_depths_replace_the_number_of_blocks_of_each_stage(tiny_spec):
    spec = with_depths(tiny_spec, [5, 1])
    assert [stage.depth for stage in spec.stages] == [5, 1]
    assert with_depths(spec, [3, 2]) == tiny_spec


def test_widths_and_reductions_follow_from_the_spec(tiny_spec):
    assert tiny_spec.widths == (4, 8, 16)
    assert tiny_spec.reductions == (4, 8)


def test_specs_cannot_be_changed_and_compare_by_value(tiny_spec):
    with pytest.raises(FrozenInstanceError):
        tiny_spec.act = "leaky"
    assert replace(tiny_spec) == tiny_spec
    assert replace(tiny_spec, act="leaky") != tiny_spec


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Stem(0, kernel=3), r"stem\.width=0 must be at least 1"),
        (lambda: Stage(0, 4, 8, None), "stage.depth=0 must be at least 1"),
        (lambda: Stage(1, 4, 8, None, entry=-2), "stage.entry=-2 must be at least 1"),
        (lambda: Stage(1, 4, 8, 0), "stage.down=0 must be at least 1"),
        (lambda: Block("darknet", groups=0), r"block\.groups=0 must be at least 1"),
        (lambda: Block("bottelneck"), "block.kind='bottelneck'.*Did you mean bottleneck"),
        (lambda: Fusion("stages"), "fusion.inputs='stages'.*Did you mean stage"),
        (lambda: Fusion(weights="per_chanel"), "Did you mean per_channel"),
        (lambda: Fusion(normalization="softmax"), "nothing to normalize"),
        (lambda: Fusion(maxout="stages"), "fusion.maxout='stages'.*Did you mean stage"),
        (lambda: Fusion(gradient="cuda"), "fusion_gradient='cuda' is not one of true, darknet"),
        (lambda: DropBlock(position="end"), "drop_block.position='end'"),
        (lambda: DropBlock(size=0), "drop_block.block_size=0 must be at least 1"),
        (lambda: Backbone(Stem(4, kernel=3), Block("darknet"), ()), r"stages=\(\) is empty"),
    ],
)
def test_a_spec_that_cannot_be_built_is_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_an_unknown_activation_is_refused_with_near_names(tiny_spec):
    with pytest.raises(ValueError, match=r"act='leeky'.*Did you mean leaky"):
        replace(tiny_spec, act="leeky")


@pytest.mark.parametrize("field", ["width", "down", "hidden"])
def test_groups_must_divide_the_widths_of_a_stage(tiny_spec, field):
    stages = (tiny_spec.stages[0], replace(tiny_spec.stages[1], **{field: 7}))
    with pytest.raises(ValueError, match=rf"stages\[1\]\.{field}=7 is not divisible by block.groups=2"):
        replace(tiny_spec, stages=stages)
