"""YAML scalars and keys mean what they look like."""

import pytest
import yaml

from backbones import strict_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1.0e-4", 1e-4),
        (".5", 0.5),
        ("-3", -3),
        ("0", 0),
        ("010", "010"),
        ("no", "no"),
        ("true", True),
        ("null", None),
        ("", None),
        ("12:30", "12:30"),
        ("'1'", "1"),
    ],
)
def test_a_scalar_is_what_it_looks_like(text, value):
    loaded = strict_yaml.load(f"key: {text}")["key"]
    assert loaded == value
    assert type(loaded) is type(value)


def test_a_key_that_stands_twice_is_an_error_with_both_lines():
    with pytest.raises(yaml.YAMLError, match=r"(?s)duplicate key 'lr' \(also on line 1\).*line 3"):
        strict_yaml.load("lr: 1\nseed: 2\nlr: 3")


def test_a_nested_key_that_stands_twice_is_an_error():
    with pytest.raises(yaml.YAMLError, match="duplicate key 'power'"):
        strict_yaml.load("optim:\n  power: 4\n  power: 2")


def test_a_tag_that_would_run_code_is_refused():
    with pytest.raises(yaml.YAMLError, match="could not determine a constructor"):
        strict_yaml.load("!!python/object/apply:os.system ['true']")
