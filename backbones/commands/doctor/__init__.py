"""``python -m backbones doctor``: the recipe is read before torch is imported, which takes seconds."""

from collections.abc import Sequence

from backbones.commands.doctor.options import read_options


def main(arguments: Sequence[str]) -> None:
    """Measure the recipe of the command line and print the report."""
    recipe = read_options(arguments)
    from backbones.commands.doctor.command import run

    run(recipe)
