"""YAML without surprises: duplicate keys are errors, 1e-4 is a number, 010 and no are not."""

import re
from typing import Any

import yaml

_INT = r"[-+]?(?:0|[1-9][0-9_]*)"
_FLOAT = r"[-+]?(?:[0-9][0-9_]*(?:\.[0-9_]*)?(?:[eE][-+]?[0-9]+)?|\.[0-9][0-9_]*(?:[eE][-+]?[0-9]+)?|\.inf|\.nan)"
_SCALARS = {
    "tag:yaml.org,2002:bool": ("true|false|True|False", "tfTF"),
    "tag:yaml.org,2002:int": (_INT, "-+0123456789"),
    "tag:yaml.org,2002:float": (f"(?!0[0-9]+$){_FLOAT}", "-+.0123456789"),
    "tag:yaml.org,2002:null": ("~|null|Null|NULL|", "~nN"),
}


def load(text: str) -> Any:
    """Return the value of a YAML document; raise ``yaml.YAMLError`` with the line of the mistake."""
    return yaml.load(text, Loader=_StrictLoader)  # noqa: S506 (a SafeLoader)


class _StrictLoader(yaml.SafeLoader):
    """PyYAML's safe loader with YAML 1.2 scalars and unique keys."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 (PyYAML's own protocol)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001
        """Build a dictionary; raise MarkedYAMLError where a key occurs twice."""
        seen: dict[Any, int] = {}
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            line = key_node.start_mark.line + 1
            if key in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"duplicate key {key!r} (also on line {seen[key]})",
                    problem_mark=key_node.start_mark,
                )
            seen[key] = line
        return super().construct_mapping(node, deep=deep)


for _tag, (_pattern, _first) in _SCALARS.items():
    _StrictLoader.add_implicit_resolver(_tag, re.compile(f"^(?:{_pattern})$"), [*_first, ""])
