"""Templates of scripts, which are files beside this module, and YAML with scripts in it that a person can read."""

import re
from importlib.resources import files
from typing import Any

import yaml


def fill(template: str, values: dict[str, str]) -> str:
    """Return the text of a template with each ``{{name}}`` replaced by its value."""
    text = files("backbones.commands.launch").joinpath(template).read_text()
    return re.sub(r"\{\{(\w+)\}\}", lambda match: values[match[1]], text)


def yaml_text(content: dict[str, Any], *comments: str) -> str:
    """Return YAML with its keys in this order, and comment lines above it."""
    lines = [f"# {comment}\n".replace("\r", " ") for text in comments for comment in text.split("\n")]
    return "".join(lines) + yaml.dump(content, Dumper=_Dumper, sort_keys=False, width=1000)


class _Dumper(yaml.SafeDumper):
    """A dumper that writes a text of several lines as such a block."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _represent_text)
