"""Print darknet's table of layers of a backbone or a .cfg, with totals and feature levels."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from backbones.assembly.request import require_network_name
from backbones.command_line import parse
from backbones.darknet.endings import CFG_HINT
from backbones.files import json_text
from backbones.recipe import require
from backbones.terminal import say, write

MAX_SIZE = 8192
"""Height and width in pixels of the largest image."""


@dataclass(frozen=True)
class Options:
    """Options of `summary`."""

    network: str = field(metadata={"positional": "NAME|CFG"})
    """Name of a backbone, or a darknet .cfg file."""
    size: int | None = None
    """Height and width of the image in pixels; unset: 256, or as in the cfg."""
    json: bool = False
    """Print a JSON list with one object for each layer."""

    def __post_init__(self) -> None:
        require(self.size is None or 1 <= self.size <= MAX_SIZE, "--size", self.size, f"must lie in [1, {MAX_SIZE}]")


def main(arguments: Sequence[str]) -> None:
    """Print the table of one network, or its figures as JSON."""
    options = parse(Options, arguments, prog="python -m backbones summary", description=__doc__ or "")
    require_network_name(options.network, hint=CFG_HINT)
    show(options)


def show(options: Options) -> None:
    """Print the table or the figures."""
    from backbones.assembly.network import layers_of, notes_on
    from backbones.darknet.summary import figures, summary

    layers = layers_of(options.network, size=options.size)
    rows = [figures(layer) for layer in layers]
    if options.json:
        write(json_text(rows, indent=2))
        return
    write(summary(layers).removesuffix("\n"))
    for note in notes_on(options.network):
        say("note", note)
