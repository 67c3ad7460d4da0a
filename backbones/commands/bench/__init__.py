"""``python -m backbones bench``: the options are read before torch is imported, which takes seconds."""

import os
from collections.abc import Sequence

from backbones.commands.bench.options import read_options


def main(arguments: Sequence[str]) -> None:
    """Measure one network, or two in turns, and print the figures."""
    options = read_options(arguments)
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # the profiler's own messages would stand between the figures
    from backbones.commands.bench.command import run

    run(options)
