"""``python -m backbones inspect``: the options are read before torch is imported, which takes seconds."""

import sys
from collections.abc import Sequence

from backbones.commands.inspect.options import read_options
from backbones.errors import UserError

STATUS_DEAD, STATUS_UNKNOWN = 2, 1
"""Exit statuses: an input is dead; an error kept us from telling."""


def main(arguments: Sequence[str]) -> None:
    """Print the table, write the picture, and exit with status 2 where an input is dead."""
    try:
        options = read_options(arguments)
        from backbones.commands.inspect.command import inspect

        dead = inspect(options)
    except UserError as error:
        error.exit_status = STATUS_UNKNOWN
        raise
    if dead:
        sys.exit(STATUS_DEAD)
