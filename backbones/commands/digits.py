"""``python -m backbones digits``: write scikit-learn's digits as an image folder for the demo."""

import argparse
import sys
from collections.abc import Sequence

from backbones.dataset.digits import COUNTS, write_digits


def main(arguments: Sequence[str]) -> None:
    """Write the digits to --output and say where they are."""
    parser = argparse.ArgumentParser(prog="python -m backbones digits", description=__doc__)
    parser.add_argument("--output", default="data/digits", help="folder to write (default: %(default)s)")
    output = write_digits(parser.parse_args(arguments).output)
    sys.stdout.write(f"{output}: {COUNTS['train']} training and {COUNTS['val']} validation images of 10 classes\n")
