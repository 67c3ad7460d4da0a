import pytest

from backbones.darknet import network, shapes
from backbones.darknet.options import (
    HEADS,
    SECTIONS,
    UNREAD_SECTIONS,
    flag,
    integer,
    layer_numbers,
    only,
    real,
    reals,
    refused,
    unused,
    word,
)


@pytest.mark.parametrize(
    ("option", "text", "value"),
    [
        (integer(1), "007", 7),
        (integer(1, -5), "-5", -5),
        (real(0.0), "1e-3", 0.001),
        (flag(), "1", 1),
        (word("poly", "poly", "steps"), "steps", "steps"),
        (layer_numbers(), "-1,36", (-1, 36)),
        (reals(), ".1,.5", (0.1, 0.5)),
        (reals(), "-1,5", (-1.0, 5.0)),
        (real(0.0), "0x1p-3", 0.125),
        (unused(0, "why"), "800", 800.0),
        (only(0), "0.0", 0),
    ],
)
def test_a_value_is_read_as_its_type(option, text, value):
    found = option.read(text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("option", "text", "message"),
    [
        (integer(1), "1.5", "must be a whole number"),
        (integer(1), "0", "must be at least 1"),
        (integer(1, high=9), "10", "must be at most 9"),
        (real(0.0), "1_0", "must be a number"),
        (real(0.0), "inf", "must be finite"),
        (flag(), "yes", "must be a whole number"),
        (word("poly", "poly", "steps"), "step", "is not one of poly, steps. Did you mean steps"),
        (layer_numbers(), "-1,,2", "must be a whole number"),
        (layer_numbers(), "-1,0,", "ends with a comma, behind which darknet reads layer 0"),
        (refused("is not read"), "1", "is not read"),
        (only(0), "1", "leave it out or say 0"),
    ],
)
def test_a_value_that_cannot_be_is_refused_with_its_rule(option, text, message):
    with pytest.raises(ValueError, match=message):
        option.read(text)


@pytest.mark.parametrize("kind", SECTIONS)
def test_every_default_is_a_value_that_the_option_accepts(kind):
    for name, option in SECTIONS[kind].items():
        if option.default is not None:
            assert option.read(str(option.default)) == option.default, name


def test_a_section_is_read_or_a_head_or_unread():
    assert not SECTIONS.keys() & {*HEADS, *UNREAD_SECTIONS}
    assert not set(HEADS) & UNREAD_SECTIONS.keys()


def test_every_section_has_a_rule_for_its_shape_and_a_builder():
    layers = SECTIONS.keys() - {"net"}
    assert shapes._RULES.keys() == layers
    assert network._BUILDERS.keys() == layers
