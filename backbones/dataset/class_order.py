"""Two orders of class names: as text, in which ImageFolder and the index sort them, and by the numbers in them."""

import re
from collections.abc import Sequence

ONE_NUMBER = re.compile(r"([^0-9]*)([0-9]+)([^0-9]*)")
"""Name with one number: 10, class_10, n01440764."""

MAX_NAMES_SHOWN = 4
"""Names at the start of an order in a message."""


def numeric_order(names: Sequence[str]) -> tuple[str, ...] | None:
    """Return the names by their numbers: 0, 1, 2, 10.

    None where they are not numbers with the same text around them, or where two have the same number, as 1 and 01.
    """
    matches = [ONE_NUMBER.fullmatch(name) for name in names]
    found = [match for match in matches if match]
    numbers = {int(match[2]): match[0] for match in found}
    if len(found) < len(names) or len({(match[1], match[3]) for match in found}) > 1 or len(numbers) < len(names):
        return None
    return tuple(numbers[number] for number in sorted(numbers))


def begin_of(names: Sequence[str]) -> str:
    """Return the first names of an order, for messages."""
    return ", ".join(names[:MAX_NAMES_SHOWN]) + (", ..." if len(names) > MAX_NAMES_SHOWN else "")
