"""``python -m backbones list``: every backbone with its size, its cost and what the thread reports for it."""

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

from backbones.assembly.network import layers_of
from backbones.darknet.summary import total_bflops
from backbones.models import VARIANTS, Variant


def main(arguments: Sequence[str]) -> None:
    """Print the table, or the same as JSON."""
    parser = argparse.ArgumentParser(prog="python -m backbones list", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print a JSON list of objects")
    options = parser.parse_args(arguments)
    rows = [describe(variant) for variant in VARIANTS.values()]
    sys.stdout.write((json.dumps(rows, indent=2) if options.json else table(rows)) + "\n")


def describe(variant: Variant) -> dict[str, Any]:
    """Return what is known about one backbone; BFLOPs are darknet's, at 256x256."""
    layers = layers_of(variant.name)
    return {
        "name": variant.name,
        "parent": variant.parent,
        "parameters": sum(layer.parameters for layer in layers),
        "bflops": round(total_bflops(layers), 6),
        "top1": variant.top1,
        "top5": variant.top5,
        "certainty": variant.certainty,
    }


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Align the columns; accuracies are the thread's, in percent."""
    heading = ("name", "parent", "parameters", "BFLOPs", "top-1", "top-5", "certainty")
    lines = [heading, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(heading))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if 2 <= column <= 5 else cell.ljust(width) for column, (cell, width) in cells
        ).rstrip()
        for cells in (list(enumerate(zip(line, widths, strict=True))) for line in lines)
    )


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    figures = (f"{row['parameters']:,}", f"{row['bflops']:.3f}", *(_shown(row[key]) for key in ("top1", "top5")))
    return (row["name"], _shown(row["parent"]), *figures, row["certainty"])


def _shown(value: Any) -> str:
    return "-" if value is None else str(value)
