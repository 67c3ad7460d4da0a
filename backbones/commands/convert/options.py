"""Convert darknet's files into ours and back.

convert a.weights --model NAME --out b.safetensors [--verify]
convert RUN|b.safetensors --out a.weights [--verify]
convert RUN|a.weights [--model NAME] --out a.conv.105 [--verify]
convert X.cfg --recipe [--out r.yaml]
convert NAME --out X.cfg
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from backbones.choices import ClassOrder
from backbones.command_line import parse
from backbones.darknet.endings import PARTIAL, is_weights_file
from backbones.errors import UserError
from backbones.files import require_output_file


@dataclass(frozen=True)
class Options:
    """Options of `convert`."""

    source: str = field(metadata={"positional": "SOURCE"})
    """A .weights or .cfg file, a checkpoint, or the name of a backbone."""
    out: str = ""
    """File to write: *.safetensors, *.weights, *.conv.N, *.cfg, or *.yaml with --recipe (printed without it)."""
    model: str | None = None
    """Name of the backbone in a .weights file, or its .cfg."""
    cutoff: int | None = None
    """Write the first N layers only, as `darknet partial` does. A name *.conv.N says so, too."""
    recipe: bool = False
    """Turn the [net] section of a .cfg into a recipe."""
    verify: bool = False
    """Read the new file and compare."""
    class_order: ClassOrder = "darknet"
    """Order of the 1000 classes in the .weights file."""
    labels: str | None = None
    """Text file with one class name per line, for a network without ImageNet's 1000 classes."""
    ema: bool = True
    """Use the averaged weights where there are any; --no-ema: the last weights."""


CONVERSIONS = {
    (".weights", ".safetensors"),
    ("other", ".weights"),
    ("other", "partial"),
    (".weights", "partial"),
    (".cfg", "recipe"),
    ("other", ".cfg"),
}
"""Kinds of file that can be made from each other: (source, target)."""


def read_options(arguments: Sequence[str]) -> Options:
    """Return the options of the command line. Raises UserError where there is no such conversion or file."""
    options = parse(Options, arguments, prog="python -m backbones convert", description=__doc__ or "")
    choose_kinds(options)
    require_output_file("--out", options.out or None)
    if options.labels is not None and not Path(options.labels).is_file():
        raise UserError(f"--labels {options.labels}: there is no such file.")
    return options


def choose_kinds(options: Options) -> tuple[str, str]:
    """Return the kinds of the source and of the target; UserError where one cannot become the other."""
    if not options.out and not options.recipe:
        raise UserError("--out is missing: name the file to write.")
    source = ".weights" if is_weights_file(options.source) else Path(options.source).suffix
    target = "recipe" if options.recipe else Path(options.out).suffix
    if target != "recipe" and choose_cutoff(options) is not None:
        target = "partial"
    kinds = source if source in (".weights", ".cfg") else "other", target
    if kinds not in CONVERSIONS:
        ways = (
            "a .weights becomes a .safetensors or .conv.N, a checkpoint a .weights or .conv.N, a .cfg a --recipe, "
            "a backbone's name a .cfg"
        )
        raise UserError(f"convert {options.source} to {options.out or 'a recipe'}: {ways}.")
    return kinds


def choose_cutoff(options: Options) -> int | None:
    """Return the number of layers to write; UserError where the name of the file says another one than --cutoff."""
    named = PARTIAL.search(options.out)
    if named is None:
        if options.cutoff is not None and not options.out.endswith(".weights"):
            raise UserError(f"--cutoff {options.cutoff}: only a .weights or .conv.N can hold the first layers.")
        return options.cutoff
    if options.cutoff not in (None, int(named[1])):
        raise UserError(f"--cutoff {options.cutoff}: {options.out} says {named[1]} layers.")
    return int(named[1])
