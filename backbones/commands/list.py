"""List the backbones with their size, their cost and the accuracy that the thread reports."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from backbones import canonical_name
from backbones.command_line import parse
from backbones.errors import UserError, did_you_mean
from backbones.files import json_text
from backbones.models import VARIANTS, Variant
from backbones.models.sizes import SIZES, Size
from backbones.terminal import table, write


@dataclass(frozen=True)
class Options:
    """Options of `list`."""

    pattern: str = field(default="*", metadata={"positional": "PATTERN"})
    """Names to list, as a shell pattern in quotes: 'csres*'."""
    json: bool = False
    """Print a JSON list of objects."""


def main(arguments: Sequence[str]) -> None:
    """Print the table, or the same as JSON."""
    options = parse(Options, arguments, prog="python -m backbones list", description=__doc__ or "")
    rows = [describe(VARIANTS[name]) for name in match_names(options.pattern)]
    write(json_text(rows, indent=2) if options.json else table([HEADING, *map(_format_cells, rows)], "llrrrrl"))


def match_names(pattern: str) -> list[str]:
    """Return the backbones that a shell pattern matches; words of a name may be joined by ``-`` or ``_``.

    Raises UserError with near names where it matches none.
    """
    spellings = {pattern.lower(), pattern.lower().replace("-", "_"), canonical_name(pattern)}
    names = [name for name in VARIANTS if any(fnmatchcase(name, spelling) for spelling in spellings)]
    if not names:
        near = did_you_mean(pattern.replace("-", "_").strip("*?"), VARIANTS)
        raise UserError(f"no backbone is called {pattern!r}.{near or ' `python -m backbones list` shows all.'}")
    return names


def describe(variant: Variant) -> dict[str, Any]:
    """Return the figures of one backbone; BFLOPs as darknet counts them, at 256x256."""
    size = SIZES.get(variant.name) or measure(variant.name)
    return {
        "name": variant.name,
        "parent": variant.parent,
        "parameters": size.parameters,
        "bflops": size.bflops,
        "top1": variant.top1,
        "top5": variant.top5,
        "certainty": variant.certainty,
    }


def measure(name: str) -> Size:
    """Return the size of a backbone from its network, which is built without weights."""
    from backbones.assembly.network import layers_of
    from backbones.darknet.summary import total_bflops

    layers = layers_of(name)
    return Size(sum(layer.parameters for layer in layers), round(total_bflops(layers), 6))


HEADING = ("name", "parent", "parameters", "BFLOPs", "top-1", "top-5", "certainty")


def _format_cells(row: dict[str, Any]) -> tuple[str, ...]:
    known = {key: "-" if value is None else str(value) for key, value in row.items()}
    figures = (f"{row['parameters']:,}", f"{row['bflops']:.3f}", known["top1"], known["top5"])
    return (row["name"], known["parent"], *figures, row["certainty"])
