"""``python -m backbones predict``: the options are read before torch is imported, which takes seconds."""

from collections.abc import Sequence

from backbones.commands.predict.options import read_options


def main(arguments: Sequence[str]) -> None:
    """Predict as the command line says; exit with status 1 where an image could not be read."""
    options = read_options(arguments)
    from backbones.commands.predict.command import run

    run(options)
