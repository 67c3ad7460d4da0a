"""Names of classes that look alike: found, and spelled so that a person sees the difference."""

import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from backbones.errors import UserError

MAX_GROUPS_SHOWN = 3
"""Groups of names that look alike in one message."""

RENAME_ALL = "convmv -f utf8 -t utf8 --nfc -r --notest FOLDER"
"""Command that renames all files and folders to the composed form."""


def spell(name: str) -> str:
    """Return a name in ASCII with its Unicode form: 'caf\\xe9' (NFC) and 'cafe\\u0301' (NFD)."""
    if name.isascii():
        return ascii(name)
    if any(unicodedata.category(letter) == "Cs" for letter in name):
        return f"{name!a} (not UTF-8)"
    forms = [form for form in ("NFC", "NFD") if unicodedata.is_normalized(form, name)]
    return f"{name!a} ({forms[0] if forms else 'neither NFC nor NFD'})"


def show(name: str) -> str:
    """Return a name for messages: as it is where all of it can be seen, otherwise spelled."""
    is_plain = name.isprintable() and name == name.strip() and unicodedata.is_normalized("NFC", name)
    return name if is_plain else spell(name)


def show_some(names: Sequence[str], *, most: int = 5) -> str:
    """Return the first ``most`` names and the number of the others, as a text."""
    rest = len(names) - most
    return ", ".join(map(show, names[:most])) + (f" and {rest} more" if rest > 0 else "")


def find_look_alikes(names: Iterable[str]) -> list[list[str]]:
    """Return the groups of different names that differ only in Unicode form, invisible characters, spaces or case."""
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for name in set(names):
        groups[_reduce(name)].append(name)
    return sorted(sorted(group) for group in groups.values() if len(group) > 1)


def describe_look_alikes(names: Iterable[str]) -> str:
    """Return a sentence about the names that look alike, with a space before it; empty where there are none."""
    groups = find_look_alikes(names)
    if not groups:
        return ""
    listed = "; ".join(" and ".join(map(spell, group)) for group in groups[:MAX_GROUPS_SHOWN])
    more = f"; and {len(groups) - MAX_GROUPS_SHOWN} more" if len(groups) > MAX_GROUPS_SHOWN else ""
    return f" These look alike but are different names: {listed}{more}.{_advise(groups)}"


def describe_twins(unknown: Iterable[str], known: Iterable[str]) -> str:
    """Return a sentence about unknown names that look like known ones, as :func:`describe_look_alikes` does."""
    unknown = set(unknown)
    reduced = {_reduce(name) for name in unknown}
    return describe_look_alikes(unknown | {name for name in known if _reduce(name) in reduced})


def refuse_equivalent(classes: Iterable[str], where: Path) -> None:
    """Raise UserError where two classes of one split are the same letters in different Unicode forms."""
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for name in classes:
        if not name.isascii():
            groups[unicodedata.normalize("NFC", name)].append(name)
    if twice := sorted(sorted(group) for group in groups.values() if len(group) > 1):
        listed = "; ".join(" and ".join(map(spell, group)) for group in twice[:MAX_GROUPS_SHOWN])
        raise UserError(
            f"{where} has {len(twice)} pairs of classes that are one name in two Unicode forms: {listed}.\n"
            "Move the images of each pair into one class, and remove the other."
        )


def _reduce(name: str) -> str:
    """Return the part of a name that a person sees, without case."""
    if name.isascii():
        return " ".join(name.casefold().split())
    text = unicodedata.normalize("NFKC", name).casefold()
    return " ".join("".join(letter for letter in text if unicodedata.category(letter) not in ("Cf", "Cc")).split())


def _advise(groups: Sequence[Sequence[str]]) -> str:
    """Return how to rename them, where the Unicode form is the only difference."""
    is_form = any(len({unicodedata.normalize("NFC", name) for name in group}) < len(group) for group in groups)
    return f" `{RENAME_ALL}` brings folders into one form." if is_form else " Rename one of each."
