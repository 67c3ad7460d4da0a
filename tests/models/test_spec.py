from dataclasses import FrozenInstanceError, replace

import pytest

from backbones.models import csresnext50
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
        (lambda: Block("darknet", elastic="reorg"), "block.elastic='reorg'.*Did you mean reorg3d"),
        (lambda: Block("darknet", 3, "pool"), r"block.groups=3 is odd, but block.elastic='pool' halves it"),
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


@pytest.mark.parametrize("field", ["width", "entry", "hidden"])
def test_an_elastic_block_halves_even_widths_only(tiny_spec, field):
    stages = (tiny_spec.stages[0], replace(tiny_spec.stages[1], **{field: 5}))
    with pytest.raises(ValueError, match=rf"stages\[1\]\.{field}=5 is odd, but block.elastic='reorg3d' halves it"):
        replace(tiny_spec, block=Block("darknet", elastic="reorg3d"), stages=stages)


@pytest.mark.parametrize(
    ("output_stride", "reductions", "dilations"),
    [
        (None, (4, 8, 16, 32), (1, 1, 1, 1)),
        (32, (4, 8, 16, 32), (1, 1, 1, 1)),
        (16, (4, 8, 16, 16), (1, 1, 1, 2)),
        (8, (4, 8, 8, 8), (1, 1, 2, 4)),
    ],
)
def test_a_stage_above_the_output_stride_is_dilated_in_place_of_halved(output_stride, reductions, dilations):
    spec = replace(csresnext50.CSRESNEXT50, output_stride=output_stride)
    assert (spec.reductions, spec.dilations) == (reductions, dilations)


def test_a_stem_with_an_odd_stride_stays_below_the_output_stride(tiny_spec):
    stages = (tiny_spec.stages[1], replace(tiny_spec.stages[1], down=16))
    spec = replace(tiny_spec, stem=Stem(4, kernel=3, stride=3), stages=stages, output_stride=8)
    assert (spec.reductions, spec.dilations) == ((6, 6), (1, 2))


@pytest.mark.parametrize(
    ("fields", "kind", "message"),
    [
        ({"output_stride": 4}, ValueError, "output_stride=4 is not one of 8, 16, 32"),
        ({"output_stride": "16"}, ValueError, "output_stride='16' is not one of 8, 16, 32"),
        ({"output_stride": 8, "stem": Stem(4, kernel=7, stride=16)}, TypeError, "the stem already reduces .* by 16"),
        ({"output_stride": 8, "pyramid": "avgpool"}, TypeError, "does not work with pyramid='avgpool'"),
        ({"downsample_kernel": 5, "downsample": "reorg3d"}, TypeError, "there is no strided convolution"),
        (
            {"output_stride": 8, "block": Block("darknet", elastic="pool")},
            TypeError,
            "half the size has no dilated form",
        ),
        ({"drop_path_rate": 1.0}, ValueError, r"drop_path_rate=1.0 must lie in \[0, 1\)"),
        ({"drop_path_rate": -0.1}, ValueError, r"drop_path_rate=-0.1 must lie in \[0, 1\)"),
        ({"drop_path_rate": 0.1, "fusion": Fusion("stage", maxout="stage")}, TypeError, "fusion.maxout='stage'"),
        ({"drop_path_rate": 0.1, "fusion": Fusion(maxout="all")}, TypeError, "fusion.maxout='all'"),
    ],
)
def test_an_option_that_cannot_work_says_why(fields, kind, message):
    with pytest.raises(kind, match=message):
        replace(csresnext50.CSRESNEXT50, **fields)


def test_an_output_stride_that_changes_nothing_goes_with_every_option():
    spec = replace(csresnext50.CSRESNEXT50, pyramid="reorg3d", output_stride=32)
    assert spec.reductions == (4, 8, 16, 32)
    assert replace(spec, drop_path_rate=0.0, fusion=Fusion(maxout="all")).drop_path_rate == 0
