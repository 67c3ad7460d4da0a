"""Lists of files in braces: train-{000..146}.tar, {train,extra}-0.tar."""

import re
from itertools import product

from backbones.errors import UserError

MAX_NAMES = 1_000_000
"""Largest number of names in one pattern."""


def expand(text: str) -> list[str]:
    """Return the names that ``text`` describes; the last braces change fastest.

    {a..b} counts, with the number of digits of ``a``; {x,y} lists. Raises UserError where braces are not closed, not
    understood, or describe too many names.
    """
    parts = re.split(r"\{([^{}]*)\}", text)
    if any(mark in part for part in parts[::2] for mark in "{}"):
        raise UserError(f"{text}: braces are not closed, or are nested.")
    choices = [[part] if i % 2 == 0 else _list_choices(part, text) for i, part in enumerate(parts)]
    count = 1
    for choice in choices:
        count *= len(choice)
    if count > MAX_NAMES:
        raise UserError(f"{text} describes {count:,} files, more than {MAX_NAMES:,}.")
    return ["".join(words) for words in product(*choices)]


def _list_choices(part: str, text: str) -> list[str]:
    if match := re.fullmatch(r"(\d+)\.\.(\d+)", part):
        first, last, width = int(match[1]), int(match[2]), len(match[1])
        if not first <= last < first + MAX_NAMES:
            raise UserError(f"{text}: {{{part}}} must count upwards, to less than {MAX_NAMES:,} files.")
        return [f"{number:0{width}d}" for number in range(first, last + 1)]
    if "," not in part:
        raise UserError(f"{text}: {{{part}}} is neither a range such as {{000..146}} nor a list such as {{a,b}}.")
    return part.split(",")
