"""``python -m backbones summary NAME|CFG``: darknet's table of layers, with totals and feature levels."""

import argparse
import json
import sys
from collections.abc import Sequence

from backbones.assembly.network import layers_of
from backbones.darknet.summary import figures, summary
from backbones.errors import UserError


def main(arguments: Sequence[str]) -> None:
    """Print the table of one network, or its figures as JSON."""
    parser = argparse.ArgumentParser(prog="python -m backbones summary", description=__doc__)
    parser.add_argument("network", help="name of a backbone, or a darknet .cfg file")
    parser.add_argument("--size", type=int, help="height and width of the image (default: 256, or what the cfg says)")
    parser.add_argument("--json", action="store_true", help="print a JSON list with one object for each layer")
    options = parser.parse_args(arguments)
    if options.size is not None and not 1 <= options.size <= 8192:
        raise UserError(f"--size {options.size} must lie in [1, 8192].")
    layers = layers_of(options.network, size=options.size)
    rows = [figures(layer) for layer in layers]
    sys.stdout.write(json.dumps(rows, indent=2) + "\n" if options.json else summary(layers))
