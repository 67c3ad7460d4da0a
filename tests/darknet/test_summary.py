import re

import pytest

import backbones
from backbones.darknet.cfg import parse_cfg, read_cfg
from backbones.darknet.shapes import infer_layers
from backbones.darknet.summary import bflops, feature_levels, figures, gmacs, line, summary, total_bflops
from tests.darknet.recordings import FIXTURES

FILES = sorted(path.stem for path in FIXTURES.glob("*.cfg"))


def layers(name):
    return infer_layers(read_cfg(FIXTURES / f"{name}.cfg"))


def recorded(name):
    return [
        dict(word.split("=") for word in row.split() if "=" in word)
        for row in (FIXTURES / f"{name}.layers.txt").read_text().splitlines()
    ]


@pytest.mark.parametrize("name", FILES)
def test_every_line_shows_darknets_figures(name):
    *rows, total = recorded(name)
    for layer, row in zip(layers(name), rows, strict=True):
        shown = line(layer)
        if float(row["bf"]):
            assert f"{row['bf']} BF" in shown
        if row["type"] in ("0", "14"):
            width, height, channels = map(int, row["out"].split("x"))
            assert f"{width:4d} x{height:4d} x{channels:4d} {row['bf']} BF" in shown
        if row["from"]:
            assert row["from"].strip(",").replace(",", " ") in shown.replace(",", "")
    assert f"Total BFLOPS {total['bflops']}\n" in summary(layers(name))


def test_a_grouped_convolution_looks_as_darknet_shows_it():
    expected = "   6 conv    128/  32  3 x 3/ 1      64 x  64 x 128 ->   64 x  64 x 128 0.037749 BF"
    assert line(layers("csresnext50-omega")[6]) == expected


SUMS = ("Total GMACs", "Parameters", "C2:", "C3:", "C4:", "C5:")
"""Beginnings of our lines below the table."""


def plain(text):
    """Return a line without extra blanks and with figures of three decimals, as darknet has them."""
    text = re.sub(r"\d+\.\d{6}", lambda figure: f"{float(figure[0]):.3f}", text)
    return " ".join(text.split())


def printed(name):
    """Return the lines of darknet's table without its remarks on defaults, which it prints within a line."""
    text = re.sub(r"(?:\w+: Using default '[-\d.]+'\n)+", "", (FIXTURES / f"{name}.table.txt").read_text())
    lines = [plain(line) for line in text.splitlines()[1:]]
    return [line for line in lines if not line.startswith(("avg_outputs", "[yolo]"))]


def ours(cfg):
    lines = summary(infer_layers(cfg)).splitlines()[1:]
    return [plain(line) for line in lines if not line.startswith(SUMS)]


@pytest.mark.parametrize("name", ["alexnet_mini", "efficientnet_mini", "table_mix", "crop_adjust"])
def test_the_table_is_the_one_that_darknet_prints(recording, name):
    assert ours(parse_cfg(recording(name).meta["cfg"])) == printed(name)


def test_the_table_of_a_detector_ends_before_its_head(recording):
    *rows, _total = ours(parse_cfg(recording("det_tiny").meta["cfg"]))
    assert rows == printed("det_tiny")[:14]


def test_every_kind_of_line_looks_as_darknet_prints_it():
    """Three of the sections are not supported here: others take their places."""
    text = (FIXTURES / "sections.cfg.txt").read_text().replace("xnor=1\n", "").replace("[lrn]\nsize=5", "[empty]")
    text = re.sub(r"\[maxpool\]\nsize=2\nstride_x=2\nstride_y=1", "[conv]\nsize=1\nstride_x=2\nfilters=64", text)
    changed = [19, 42, 46]
    theirs = printed("sections")
    found = ours(parse_cfg(text))
    assert len(found) == len(theirs)
    different = [a for a, b in zip(found, theirs, strict=True) if a != b and not a.startswith("Total")]
    assert [int(line.split()[0]) for line in different] == changed


@pytest.mark.parametrize(
    ("name", "channels"),
    [("csresnext50sub", [256, 512, 1024, 2048]), ("csdarknet53-omega-mi-ip", [128, 256, 512, 1024])],
)
@pytest.mark.parametrize("size", [256, 320, 257])
def test_levels_are_the_last_maps_of_each_resolution(name, channels, size):
    levels = feature_levels(infer_layers(read_cfg(FIXTURES / f"{name}.cfg"), size=size))
    assert list(levels) == ["C2", "C3", "C4", "C5"]
    assert [layer.output.channels for layer in levels.values()] == channels


def test_gmacs_count_multiplications_only():
    table = layers("csresnext50-ws")
    pools_and_sums = sum(layer.flops for layer in table if layer.kind in ("maxpool", "shortcut")) / 1e9
    assert 2 * gmacs(table) + pools_and_sums == pytest.approx(total_bflops(table), abs=1e-5)


def test_bflops_of_a_network_grow_with_the_image(network):
    text = "[conv]\nfilters=4\nsize=3\npad=1\n[maxpool]\nsize=2\nstride=2\n[avgpool]\n[connected]\noutput=5"
    expected = 2 * 4 * 27 * 16 * 16 + 4 * 4 * 8 * 8  # darknet counts nothing for [connected]
    assert bflops(network(text), 16) == pytest.approx(expected / 1e9)


def test_counting_leaves_the_model_alone():
    model = backbones.create_model("csresnext50", num_classes=2).train()
    assert bflops(model, 64) < bflops(model)
    assert model.training
    assert model.stem.conv.bn.num_batches_tracked == 0


def test_figures_are_plain(network):
    net = network("[conv]\nfilters=4\nsize=3\npad=1")
    assert figures(net.inferred_layers[0]) == {
        "index": 0, "type": "convolutional", "filters": 4, "input": (8, 8, 3), "output": (8, 8, 4), "from": (),
        "parameters": 112, "bflops": 1.4e-05,
    }  # fmt: skip


def test_every_kind_of_layer_has_a_line(network):
    text = (
        "[conv]\nfilters=4\ndilation=2\nsize=3\npad=1\n[maxpool]\nmaxpool_depth=1\nout_channels=4\n[local_avgpool]\nsize=2\n"
        "stride=2\n[upsample]\n[route]\nlayers=-1\ngroups=2\n[dropout]\n[connected]\noutput=4\n[softmax]\n[cost]\n"
    )
    table = summary(network(text).inferred_layers)
    assert table.count("\n") == 1 + 9 + 3
    assert "3 x 3/ 1(2)" in table
    assert "route 3 0/2" in table
