from dataclasses import FrozenInstanceError, replace

import pytest

from backbones.models.spec import Backbone, Block, Fusion, Stage, Stem


def test_block_fusion_always_adds_one_earlier_output():
    assert [Fusion().sources(block, depth=4) for block in range(4)] == [1, 1, 1, 1]


def test_stage_fusion_adds_all_earlier_outputs_at_the_last_block():
    assert [Fusion("stage").sources(block, depth=4) for block in range(4)] == [1, 1, 1, 4]


def test_stage_fusion_of_a_single_block_has_nothing_more_to_add():
    assert Fusion("stage").sources(0, depth=1) == 1


def test_rows_cannot_be_changed_and_compare_by_value(tiny_row):
    with pytest.raises(FrozenInstanceError):
        tiny_row.act = "leaky"
    assert replace(tiny_row) == tiny_row
    assert replace(tiny_row, act="leaky") != tiny_row


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
        (lambda: Backbone(Stem(4, kernel=3), Block("darknet"), ()), r"stages=\(\) is empty"),
    ],
)
def test_a_row_that_cannot_be_built_is_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_an_unknown_activation_is_refused_with_near_names(tiny_row):
    with pytest.raises(ValueError, match=r"act='leeky'.*Did you mean leaky"):
        replace(tiny_row, act="leeky")


@pytest.mark.parametrize("field", ["width", "down", "hidden"])
def test_groups_must_divide_the_widths_of_a_stage(tiny_row, field):
    stages = (tiny_row.stages[0], replace(tiny_row.stages[1], **{field: 7}))
    with pytest.raises(ValueError, match=rf"stages\[1\]\.{field}=7 is not divisible by block.groups=2"):
        replace(tiny_row, stages=stages)
