"""The one exception that is meant for the user: it names the culprit and the remedy, and needs no traceback."""

import difflib
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it: 128 and the number of the signal."""


class UserError(Exception):
    """Something the user can mend: a missing folder, an unknown name, a checkpoint of another network."""


@contextmanager
def exit_on_user_error(status: int = 2) -> Iterator[None]:
    """Print a ``UserError`` as one message without a traceback and exit with ``status``; with 130 after Ctrl-C."""
    try:
        yield
    except UserError as error:
        rank = os.environ.get("RANK", "0")
        print(f"error{'' if rank == '0' else f' (rank {rank})'}: {error}", file=sys.stderr, flush=True)  # noqa: T201
        sys.exit(status)
    except KeyboardInterrupt:
        print("interrupted: a run goes on from its last checkpoint with --resume RUN", file=sys.stderr)  # noqa: T201
        sys.exit(INTERRUPTED)


def require_folder_for(option: str, file: str | None) -> None:
    """Refuse an output file whose folder does not exist, before any work is done for it."""
    if file is not None and not Path(file).absolute().parent.is_dir():
        raise UserError(f"{option} {file}: there is no folder {Path(file).parent}.")


def did_you_mean(name: str, known: Iterable[str], *, n: int = 3) -> str:
    """Return ``" Did you mean a, b?"`` for the known names nearest to ``name``, or ``""`` when none is near."""
    near = difflib.get_close_matches(name, list(known), n=n, cutoff=0.5)
    return f" Did you mean {', '.join(near)}?" if near else ""
