"""The published cfg files of darknet, read without our own reader."""

from dataclasses import fields
from pathlib import Path

from backbones.models import Backbone

FIXTURES = Path(__file__).parents[1] / "fixtures" / "darknet"


def published_stages(name: str) -> list[tuple[int, int]]:
    """Return (filters, number of shortcuts before the next one) for each convolution of stride 2."""
    stages: list[tuple[int, int]] = []
    for section in (FIXTURES / f"{name}.cfg").read_text().split("[")[1:]:
        kind, _, text = section.partition("]")
        options = dict(line.split("=", 1) for line in text.split() if "=" in line)
        if kind == "convolutional" and options.get("stride") == "2":
            stages.append((int(options["filters"]), 0))
        elif kind == "shortcut":
            filters, count = stages[-1]
            stages[-1] = (filters, count + 1)
    return stages


def changed_fields(child: Backbone, parent: Backbone) -> set[str]:
    """Return the names of the fields in which two specs differ."""
    return {field.name for field in fields(Backbone) if getattr(child, field.name) != getattr(parent, field.name)}
