"""Inputs, shapes and costs of layers. test_models.py compares them with darknet's tables."""

import pytest

from backbones.darknet.cfg import parse_cfg
from backbones.darknet.shapes import Shape, class_count, classifier_layer, infer_layers

NET = "[net]\nheight=8\nwidth=6\nchannels=3\n"


def infer(layers: str, **options):
    return infer_layers(parse_cfg(NET + layers), **options)


def test_relative_and_absolute_numbers_mean_the_same_layer():
    text = "[conv]\nfilters=4\n" * 3 + "[route]\nlayers={}\n[shortcut]\nfrom={}\n"
    relative, absolute = (infer(text.format(*names)) for names in (("-1,-3", "-3"), ("2,0", "1")))
    assert [layer.sources for layer in relative] == [layer.sources for layer in absolute]
    assert relative[3].sources == (2, 0)
    assert relative[4].inputs == (3, 1)


def test_a_layer_behind_a_dropout_reads_the_dropped_map():
    layers = infer(
        "[conv]\nfilters=4\n[dropout]\n[dropout]\n[route]\nlayers=0,1\n[conv]\nfilters=4\n[shortcut]\nfrom=0"
    )
    assert layers[2].inputs == (1,)
    assert layers[3].inputs == (2, 2)
    assert layers[3].sources == (0, 1)
    assert layers[5].inputs == (4, 2)


def test_another_size_replaces_height_and_width():
    assert infer("[conv]\nfilters=4")[0].output == Shape(4, 8, 6)
    assert infer("[conv]\nfilters=4", size=32)[0].output == Shape(4, 32, 32)


@pytest.mark.parametrize(
    ("layer", "output"),
    [
        ("[maxpool]\nsize=2\nstride=2", (3, 4, 3)),
        ("[maxpool]\nsize=3\nstride=2", (3, 4, 3)),
        ("[maxpool]\nsize=4\nstride=4", (3, 2, 2)),
        ("[maxpool]\nsize=4\nstride=4\npadding=0", (3, 2, 1)),
        ("[maxpool]\nstride=3", (3, 3, 2)),
        ("[maxpool]\nsize=2\nstride=2\nantialiasing=1", (3, 4, 3)),
        ("[local_avgpool]\nsize=3\nstride=1", (3, 8, 6)),
        ("[conv]\nfilters=5\nsize=7\nstride=2\npad=1", (5, 4, 3)),
        ("[reorg3d]\nstride=2", (12, 4, 3)),
        ("[upsample]\nstride=3", (3, 24, 18)),
        ("[avgpool]", (3, 1, 1)),
        ("[connected]\noutput=7", (7, 1, 1)),
        ("[crop]\ncrop_height=5\ncrop_width=4", (3, 5, 4)),
        ("[reorg]\nextra=1", (145, 1, 1)),
        ("[activation]\nactivation=mish\n[empty]", (3, 8, 6)),
        ("[softmax]", (144, 1, 1)),
    ],
)
def test_sizes_follow_darknets_rules(layer, output):
    assert infer(layer)[0].output == output


def test_costs_are_counted_as_darknet_counts():
    conv, pool, join, total = infer(
        "[conv]\nbatch_normalize=1\nfilters=4\nsize=3\npad=1\n[maxpool]\nsize=2\nstride=1\n"
        "[shortcut]\nfrom=0\nweights_type=per_channel\nweights_normalization=relu\n[connected]\noutput=5"
    )
    assert (conv.parameters, conv.statistics, conv.flops) == (4 * 27 + 8, 8, 2 * 4 * 27 * 48)
    assert (pool.parameters, pool.flops) == (0, 4 * 4 * 48)
    assert (join.parameters, join.flops) == (8, 2 * 4 * 48)
    assert (total.parameters, total.flops) == (5 * 193, 2 * 5 * 192)


@pytest.mark.parametrize(("stride", "options", "strided"), [(1, "", False), (2, "", True), (1, "alpha=2", True)])
def test_a_shortcut_between_sizes_or_with_factors_is_strided(stride, options, strided):
    layers = infer(f"[conv]\nfilters=4\n[conv]\nfilters=6\nstride={stride}\n[shortcut]\nfrom=0\n{options}")
    assert layers[2].is_strided is strided
    assert layers[2].input_channels == (6, 4)


def test_the_classifier_is_the_last_layer_with_weights():
    layers = infer("[conv]\nfilters=4\n[conv]\nfilters=9\n[avgpool]\n[softmax]\n[cost]")
    assert classifier_layer(layers).index == 1
    assert class_count(layers) == 9
