"""Write scikit-learn's digits as an image folder for the demo."""

from collections.abc import Sequence
from dataclasses import dataclass

from backbones.command_line import parse
from backbones.dataset.digits import COUNTS, write_digits
from backbones.terminal import write


@dataclass(frozen=True)
class Options:
    """Options of `digits`."""

    output: str = "data/digits"
    """Folder to write."""


def main(arguments: Sequence[str]) -> None:
    """Write the digits and print where they are."""
    options = parse(Options, arguments, prog="python -m backbones digits", description=__doc__ or "")
    output = write_digits(options.output)
    write(f"{output}: {COUNTS['train']} training and {COUNTS['val']} validation images of 10 classes")
