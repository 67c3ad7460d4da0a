"""The exception whose message is for the user: it names the culprit and the remedy, and needs no traceback."""

import difflib
import io
import os
import re
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

WRONG_WORDS = 2
"""Exit status of an error that the user can correct."""

INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it: 128 and the number of the signal."""

PREEMPTED = 75
"""Exit status after SIGTERM or SIGUSR1: the same command with --resume goes on (EX_TEMPFAIL)."""

WAIT_FOR_LAUNCHER_SECONDS = 3.0
"""Time in which a launcher notices that another process has ended; torchrun looks every 0.1 s."""

MIN_LIKENESS = 0.65
"""Likeness of two names (0 to 1) from which on one is suggested for the other, if their lengths are similar."""


class UserError(Exception):
    """Something that the user can correct: a missing folder, an unknown name, a checkpoint of another network."""

    exit_status = WRONG_WORDS
    """Status with which the process ends."""


@contextmanager
def exit_on_user_error(*, interrupted: str = "a run that has a checkpoint goes on with --resume RUN") -> Iterator[None]:
    """Print a ``UserError`` as one message without a traceback and exit with its status; with 130 after Ctrl-C.

    Characters that stdout cannot encode are escaped. An error that all processes of a host have is printed once, by
    the first: its launcher ends the others while they wait.

    Args:
        interrupted: what to do after Ctrl-C, for the user.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        yield
    except UserError as error:
        if os.environ.get("LOCAL_RANK", "0") != "0":
            _let_the_first_speak()
        rank = os.environ.get("RANK", "0")
        text = hide_passwords(str(error))
        print(f"error{'' if rank == '0' else f' (rank {rank})'}: {text}", file=sys.stderr, flush=True)  # noqa: T201
        sys.exit(error.exit_status)
    except KeyboardInterrupt:
        print(f"interrupted: {interrupted}", file=sys.stderr)  # noqa: T201
        sys.exit(INTERRUPTED)


def _let_the_first_speak() -> None:
    """Wait to be ended by the launcher, which does so when the first process of this host ends with an error."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    time.sleep(WAIT_FOR_LAUNCHER_SECONDS)


def hide_passwords(text: str) -> str:
    """Return the text without user names and passwords of addresses, such as https://user:password@host."""
    return re.sub(r":(/{1,2})[^/\s@]+@", r":\1***@", text)


def did_you_mean(name: str, known: Iterable[str], *, n: int = 3) -> str:
    """Return ``" Did you mean a, b?"`` for the known names nearest to ``name``, or ``""`` where none is near."""
    known = list(known)
    similar = [other for other in known if abs(len(other) - len(name)) <= len(name) // 2]
    near = difflib.get_close_matches(name, similar, n=n, cutoff=MIN_LIKENESS)
    near = near or [other for other in known if len(name) > 2 and other.startswith(name)][:n]
    return f" Did you mean {', '.join(near)}?" if near else ""


def require_choice(option: str, value: object, choices: Iterable[str]) -> None:
    """Raise `ValueError` that names ``option``, unless ``value`` is one of ``choices``."""
    known = tuple(choices)
    if value not in known:
        hint = did_you_mean(str(value), known)
        raise ValueError(f"{option}={value!r} is not one of {', '.join(known)}.{hint}")
