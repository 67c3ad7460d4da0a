"""``python -m backbones convert``: the options are read before torch is imported, which takes seconds."""

from collections.abc import Sequence

from backbones.commands.convert.options import read_options


def main(arguments: Sequence[str]) -> None:
    """Convert one file as the command line says."""
    options = read_options(arguments)
    from backbones.commands.convert.command import run

    run(options)
