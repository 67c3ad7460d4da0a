"""Reading and writing cfg files; every mistake is one line that names file, line and option."""

import contextlib
import json
from random import Random

import pytest

from backbones.darknet import network as networks
from backbones.darknet.cfg import format_cfg, parse_cfg, read_cfg
from backbones.darknet.network import load_cfg
from backbones.darknet.options import OPTION_ALIASES, SECTION_ALIASES, SECTIONS
from backbones.darknet.shapes import infer_layers
from backbones.errors import UserError
from tests.darknet.recordings import FIXTURES, resolve_options

NET = "[net]\nheight=8\nwidth=8\nchannels=3\n"
CONV = "[convolutional]\nfilters=8\n"


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Load a cfg whose first layer is on line 5; no layer may be built."""

    def build(layer):
        raise AssertionError("a layer is built before the cfg is checked")

    monkeypatch.setattr(networks, "_BUILDERS", dict.fromkeys(networks._BUILDERS, build))

    def load(layers: str | bytes, net: str = NET):
        file = tmp_path / "a.cfg"
        file.write_bytes(layers if isinstance(layers, bytes) else (net + layers).encode())
        return load_cfg(file)

    return load


def test_values_are_typed_and_the_rest_is_default():
    cfg = parse_cfg(NET + "[maxpool]\nsize=3\n[dropout]\nprobability=.5\n[route]\nlayers=-1, 0\n")
    pool, dropout, route = cfg.layers
    assert (pool["size"], pool["stride"], pool["padding"]) == (3, 1, None)
    assert dropout["probability"] == 0.5
    assert route["layers"] == (-1, 0)


def test_comments_blanks_and_a_byte_order_mark_change_nothing(tmp_path):
    file = tmp_path / "a.cfg"
    file.write_bytes(
        b"\xef\xbb\xbf#\r\n [net] \r\nheight = 8#x\r\nwidth=8\r\nchannels=3\r\n;no\r\n\r\n[conv]\r\n\tfil ters= 4\r\n"
    )
    assert read_cfg(file).layers[0]["filters"] == 4


def test_lines_are_counted_from_one():
    section = parse_cfg(NET + "\n# comment\n[convolutional]\nfilters=4\n").layers[0]
    assert (section.line, section.lines["filters"]) == (7, 8)


@pytest.mark.parametrize("spelling", ["weights_normalization", "weights_normalizion"])
@pytest.mark.parametrize("value", ["relu", "avg_relu"])
def test_both_spellings_of_the_normalization_are_read(spelling, value):
    text = f"[shortcut]\nfrom=-2\nweights_type=per_layer\n{spelling}={value}\n"
    section = parse_cfg(NET + text).layers[0]
    assert (section["weights_type"], section["weights_normalization"]) == ("per_feature", "relu")


def test_short_names_of_sections_are_spelled_out():
    text = "".join(f"[{alias}]\n" for alias in SECTION_ALIASES if alias != "network")
    kinds = [section.kind for section in parse_cfg(f"{NET}{text}").layers]
    assert kinds == [kind for alias, kind in SECTION_ALIASES.items() if alias != "network"]


def test_what_is_written_is_read_again_as_the_same():
    text = NET + "[conv]\nfilters=4\nactivation=mish\n[route]\nlayers=-1,0\n[dropout]\nprobability=0.25\n"
    cfg = parse_cfg(text)
    again = parse_cfg(format_cfg(cfg))
    assert resolve_options(cfg.layers) == resolve_options(again.layers)
    assert format_cfg(again) == format_cfg(cfg)


def test_aliases_lead_to_options_of_the_table():
    known = {option for options in SECTIONS.values() for option in options}
    assert set(OPTION_ALIASES.values()) <= known


@pytest.fixture(scope="module")
def oddities():
    return json.loads((FIXTURES / "syntax.json").read_text())


ODDITIES = {
    "comment_after_word_hash": r":12: .*activation=tanh#wasleaky has a comment on its line",
    "comment_after_word_semicolon": r":12: .*activation=tanh;x has a comment on its line",
    "comment_list_with_comma": r":22: .*layers=-1#a,b has a comment on its line",
    "comment_after_section": r":7: \[convolutional\]#c: darknet takes a comment behind a heading",
    "comment_after_section_glued": r":7: \[convolutional\];c: darknet takes a comment behind a heading",
    "section_uppercase": r":7: unknown section \[Convolutional\]",
    "section_uppercase_net": r":1: unknown section \[NET\]",
    "section_unknown": r":14: unknown section \[foo\]",
    "section_unclosed": r":7: unknown section \[convolutional. Did you mean convolutional",
    "section_empty_route": ":14: .*layers is missing",
    "section_empty_shortcut": ":14: .*from is missing",
    "short_lrn": r":14: \[lrn\] is not supported here; both darknets read it",
    "key_uppercase": ":8: .*unknown option Filters. Did you mean filters",
    "activation_uppercase": ":12: .*activation=Leaky is not one of",
    "activation_unknown": ":12: .*activation=foo is not one of",
    "value_empty": ":8: .*filters= must be a whole number",
    "value_empty_activation": ":12: .*activation= is not one of",
    "line_without_equals": ":8: filters is neither",
    "line_only_word_key_known": ":13: batch_normalize is neither",
    "line_starts_equals": ":8: .*unknown option",
    "value_float": ":8: .*filters=4.9 must be a whole number",
    "value_scientific_int": ":8: .*filters=1e1 must be a whole number",
    "value_hex_int": ":8: .*filters=0x8 must be a whole number",
    "value_comma_decimal": ":7: .*learning_rate=0,1 must be a number",
    "value_garbage_tail": ":8: .*filters=4abc must be a whole number",
    "value_quoted": ':8: .*filters="4" must be a whole number',
    "value_word_bool": ":8: .*batch_normalize=yes must be a whole number",
    "value_equals": ":12: .*activation=leaky=x is not one of",
    "value_nbsp": ":8: .*must be a whole number",
    "option_unknown": ":13: .*unknown option foo",
    "option_before_section": ":1: filters=4 comes before the first",
    "net_not_first": r":1: a cfg begins with \[net\]",
    "net_twice": r":14: \[net\] comes only once",
    "empty_file": r":1: a cfg begins with \[net\]",
    "only_net": r":1: there is no layer after \[net\]",
    "formfeed": r":8: .*unknown option \?filters",
    "no_channels": ":1: .*channels is missing",
    "inputs_only": ":3: .*inputs=10 is not supported here",
    "from_list_trailing_comma": ":22: .*from=-2, ends with a comma",
    "route_trailing_comma": ":22: .*layers=-1,-2, ends with a comma",
}
"""What darknet does not read at all or misreads in silence -> our error."""
READ_HERE_ONLY = {"cr_only", "bom"}
"""Files at which both darknets stop, although nothing in them is ambiguous."""


def test_what_darknet_reads_as_meant_is_read_the_same(oddities, tmp_path):
    for name in oddities.keys() - ODDITIES.keys() - READ_HERE_ONLY:
        (tmp_path / "a.cfg").write_bytes(oddities[name]["cfg"].encode())
        found = infer_layers(read_cfg(tmp_path / "a.cfg"))
        recorded = oddities[name]["alexeyab"]
        assert recorded["exit"] == 0, name
        for layer, (shape, activation) in zip(found, recorded["layers"], strict=True):
            channels, height, width = layer.output
            assert shape in (f"{width}x{height}x{channels}", "0x0x0"), name
            assert layer.kind != "convolutional" or layer.section["activation"] == activation, name


@pytest.mark.parametrize("name", sorted(READ_HERE_ONLY))
def test_a_mark_at_the_start_and_old_line_ends_are_no_obstacle(oddities, tmp_path, name):
    (tmp_path / "a.cfg").write_bytes(oddities[name]["cfg"].encode())
    assert read_cfg(tmp_path / "a.cfg").layers[0]["filters"] == 4


@pytest.mark.parametrize("name", ODDITIES)
def test_what_darknet_misreads_in_silence_is_an_error_with_its_line(oddities, tmp_path, name):
    (tmp_path / "a.cfg").write_bytes(oddities[name]["cfg"].encode())
    with pytest.raises(UserError, match=rf"a\.cfg{ODDITIES[name]}"):
        infer_layers(read_cfg(tmp_path / "a.cfg"))


def test_of_an_option_given_twice_the_first_counts_with_a_note():
    cfg = parse_cfg(NET + "[conv]\nfilters=4\nfilters=7\n", "a.cfg")
    assert cfg.layers[0]["filters"] == 4
    assert cfg.notes == ("a.cfg:7: [convolutional] filters=7 has no effect: the first one counts, on line 6",)


@pytest.mark.parametrize(
    "given", ["stopbackward=800", "learning_rate=.5", "dont_update=1", "train_only_bn=1", "onlyforward=1", "clip=5"]
)
def test_what_only_changes_darknets_training_of_a_layer_gets_a_note(given):
    (note,) = parse_cfg(f"{NET}[conv]\n{given}\n").notes
    assert f":6: [convolutional] {given} has no effect here: every layer is trained" in note
    assert not parse_cfg(NET + "[conv]\nstopbackward=0\nlearning_rate=1\n").notes


DETECTOR = NET + CONV + "[conv]\nfilters=18\n[yolo]\nanything=1\n[nonsense]\n"


def test_a_detector_is_read_up_to_its_first_head():
    cfg = parse_cfg(DETECTOR)
    assert (len(cfg.layers), cfg.head.kind, cfg.head.line) == (2, "yolo", 9)
    assert cfg.is_backbone


def test_the_first_layers_are_read_whatever_follows():
    cfg = parse_cfg(NET + CONV + "[nonsense]\n", layers=1)
    assert (len(cfg.layers), cfg.head, cfg.is_backbone) == (1, None, True)
    assert len(parse_cfg(DETECTOR, layers=1).layers) == 1


@pytest.mark.parametrize("layers", [0, -1])
def test_no_layers_are_no_network(layers):
    with pytest.raises(UserError, match=f"layers={layers}: cfg can be read from 1 layer on"):
        parse_cfg(DETECTOR, layers=layers)


@pytest.mark.parametrize("layers", [3, 99])
def test_more_layers_than_there_are_cannot_be_taken(layers):
    with pytest.raises(UserError, match=rf"layers={layers}: cfg has 2 layers before its first head"):
        parse_cfg(DETECTOR, layers=layers)


FIRST = [
    (
        "[shortcut]\nfrom=-2\nweights_type=per_feture",
        r":7: \[shortcut\] weights_type=per_feture is not one of .*Did you mean per_feature",
    ),
    ("[convolutional]\nfilters=-8", r":6: \[convolutional\] filters=-8 must be at least 1"),
    ("[convolutional]\nfilters=2000000000", r":6: \[convolutional\] filters=2000000000 must be at most 65536"),
    ("[convolutional]\nfilters=2e9", r":6: \[convolutional\] filters=2e9 must be a whole number"),
    ("[convolutional]\nstride=0", r":6: \[convolutional\] stride=0 must be at least 1"),
    ("[convolutional]\nfiltres=8", r":6: \[convolutional\] unknown option filtres. Did you mean filters"),
    ("[convolutional]\nactivation=mihs", r"activation=mihs is not one of .*Did you mean mish"),
    ("[convolutional]\nbatch_normalize=yes", "batch_normalize=yes must be a whole number"),
    (
        "[shortcut]\nfrom=-1\nweights_normalizion=relu\nweights_normalization=softmax",
        r":8: .*weights_normalization=softmax is given twice, on line 7 as weights_normalizion",
    ),
    ("[convolutional]\nfilters", r":6: filters is neither \[section\] nor option=value"),
    ("[convolutional]\nfilters=", "filters= must be a whole number"),
    ("[convolutional]\nfilters=1_0", "filters=1_0 must be a whole number"),
    ("[convolutional]\nfilters=\u0668", "must be a whole number"),
    ("[convolutional]\ndontload=1", "dontload=1 is not supported here"),
    ("[convolutional]\nflipped=1", "flipped=1 is not supported here"),
    ("[convolutional]\nburnin_update=7", "burnin_update=7 is not supported here"),
    ("[cost]\ntype=L1", "type=L1 is not one of sse"),
    ("[convolutional]\nxnor=1", "xnor=1 is not supported here: leave it out or say 0"),
    ("[convolutional]\nfilters=" + "9" * 5000, "filters=9+... must be a whole number"),
    ("[convolutionl]\nfilters=8", r":5: unknown section \[convolutionl\]. Did you mean convolutional"),
    ("[\x1b[31myolo]\n", r"unknown section \[\?\[31myolo\]"),
    ("[yolo]\n", r":5: \[yolo\] is the head of a detector; there is no layer before it"),
    (
        "[prelu]\n",
        r":5: \[prelu\] is not supported here; a fork of darknet for MTCNN reads it. load_cfg\(..., layers=N\)",
    ),
    ("[softmax]\ntree=9k.tree", r":6: \[softmax\] tree=9k.tree is a softmax over a tree of classes"),
    ("[conv\nfilters=8", r":5: unknown section \[conv. Did you mean conv"),
    ("[shortcut]\nactivation=linear", r":5: \[shortcut\] from is missing"),
    ("[route]\ngroups=2", r":5: \[route\] layers is missing"),
    ("[dropout]\nprobability=nan", "probability=nan must be finite"),
    ("[dropout]\nprobability=1.5", "probability=1.5 must be at most"),
    (NET, r":5: \[net\] comes only once"),
    ("", r":1: there is no layer after \[net\]"),
    ("[route]\nlayers=-1\n" * 1001, r":2005: there are 1001 layers, more than 1000"),
]
LATER = [
    ("[shortcut]\nfrom=99", r":8: \[shortcut\] from=99 must name an earlier layer: this is layer 1"),
    ("[shortcut]\nfrom=1", "from=1 must name an earlier layer"),
    ("[shortcut]\nfrom=-2", "from=-2 must name an earlier layer"),
    ("[route]\nlayers=-1,7", r":8: \[route\] layers=-1,7 must name an earlier layer"),
    ("[convolutional]\nfilters=9\ngroups=4", r":9: \[convolutional\] groups=4 does not divide the 9 filters"),
    ("[convolutional]\nfilters=9\ngroups=3", "groups=3 does not divide the 8 input channels"),
    ("[convolutional]\nsize=9", r"size=9 is larger than its input of 8 x 8"),
    ("[route]\nlayers=-1\ngroups=3", "groups=3 does not divide the 8 channels of layer 0"),
    ("[route]\nlayers=-1\ngroups=2\ngroup_id=2", "group_id=2 must be less than groups=2"),
    ("[maxpool]\nmaxpool_depth=1\nout_channels=9", "out_channels=9 is more than the 8 channels"),
    ("[maxpool]\nsize=2\npadding=3", "padding=3 is more than 2"),
    ("[maxpool]\nstride=2\nstride_x=1\nsize=2", "stride_x=1 makes steps of 2 down and 1 across"),
    ("[reorg3d]\nstride=3", "stride=3 does not fit: the height 8 of the input must be a multiple of 3"),
    ("[reorg3d]\nstride=2\nreverse=1", "the channels 8 of the input must be a multiple of 16"),
    ("[upsample]\nstride=0", "stride=0 must not be 0"),
    ("[upsample]\nstride=-3", "must be a multiple of 3"),
    ("[softmax]\ngroups=3", "groups=3 does not divide the 512 inputs"),
    (
        "[maxpool]\nstride=2\nsize=2\n[shortcut]\nfrom=0,1",
        "from=0,1 adds 8 x 8 of layer 0 to 4 x 4 of layer 1, which only a shortcut with one source and without weights",
    ),
    (
        "[convolutional]\nstride_x=2\nstride_y=1\n[shortcut]\nfrom=0",
        "from=0 adds 8 x 8 of layer 0 to 4 x 8 of layer 1: heights and widths have different ratios",
    ),
    ("[shortcut]\nfrom=0,0\nalpha=2", "alpha=2 needs one source and no weights"),
    ("[crop]\ncrop_height=9\ncrop_width=4", "crop_height=9 is more than the 8 cells of the input"),
    ("[maxpool]\nstride=2\nsize=2\n[route]\nlayers=0,1", "layers=0,1 joins 8 x 8 of layer 0 with 4 x 4 of layer 1"),
    ("[shortcut]\nfrom=0\nweights_type=per_feature", "weights_type=per_feature needs weights_normalization"),
    ("[maxpool]\nstride=2\nsize=2\n[sam]\nfrom=0", r"from=0 is \(8, 8, 8\), but layer 1 is \(8, 4, 4\)"),
    ("[scale_channels]\nfrom=0", "cannot scale"),
    ("[connected]\noutput=9000000", "output=9000000 makes 4,617,000,032 parameters, more than 1,000,000,000"),
    ("[convolutional]\nfilters=65536\nsize=64\npad=1", "filters=65536 makes 2,147,549,216 parameters, more than"),
    ("[upsample]\nstride=20000", "stride=20000 makes 204,800,000,000 cells for each image, more than"),
    ("[convolutional]\nsize=2\ndilation=2", "dilation=2 needs an odd size and pad=1"),
]


@pytest.mark.parametrize(("layer", "message"), [*FIRST, *[(CONV + layer, message) for layer, message in LATER]])
def test_a_mistake_is_one_line_and_nothing_is_built(load, layer, message):
    with pytest.raises(UserError, match=message) as refused:
        load(layer)
    text = str(refused.value)
    assert "\n" not in text
    assert "a.cfg:" in text
    assert len(text) < 600


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"a.cfg:1: a cfg begins with \[net\]"),
        (b"[conv]\nfilters=8", r"a.cfg:1: a cfg begins with \[net\]"),
        (b"filters=8", "a.cfg:1: filters=8 comes before the first"),
        (b"[net]\nwidth=8\n[conv]", r"a.cfg:1: \[net\] height is missing"),
        (b"[net]\nheight=0", "a.cfg:2: .* height=0 must be at least 1"),
        (b"\x7fELF\0\0\1", "a.cfg is not a text file"),
        (b"#" * 2_000_000, "a.cfg is 2000000 bytes large: that is no cfg"),
    ],
)
def test_a_file_that_is_no_cfg_is_refused(load, content, message):
    with pytest.raises(UserError, match=message):
        load(content)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"there is no cfg .*none.cfg"):
        read_cfg(tmp_path / "none.cfg")


@pytest.mark.parametrize("seed", range(4))
def test_a_garbled_cfg_is_planned_or_refused_but_never_breaks(seed):
    """Values, options and lines of a real cfg are mixed up at random."""
    random = Random(seed)
    lines = (FIXTURES / "csresnext50sub-mo.cfg").read_text().splitlines()[:150]
    words = [
        "-1",
        "0",
        "1",
        "99",
        "2.5",
        "nan",
        "[sam]",
        "from=",
        "size=7",
        "stride=3",
        "[upsample]",
        "=",
        "groups=7",
        "x",
    ]
    for _ in range(150):
        garbled = list(lines)
        for _ in range(random.randint(1, 3)):
            spot = random.randrange(len(garbled))
            left = garbled[spot].partition("=")[0]
            garbled[spot] = random.choice(
                [f"{left}={random.choice(words)}", random.choice(words), random.choice(lines)]
            )
        with contextlib.suppress(UserError):
            infer_layers(parse_cfg("\n".join(garbled)))
