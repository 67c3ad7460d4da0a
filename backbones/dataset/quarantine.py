"""List of excluded images, written by a person or `verify`: quarantine.tsv in the folder of the data set."""

import re
from collections.abc import Collection, Iterator, Mapping, Set
from dataclasses import replace
from pathlib import Path

import numpy as np

from backbones.dataset.class_names import describe_twins, show_some
from backbones.dataset.index import Index, some
from backbones.errors import UserError
from backbones.files import read_text, write_text

FILE = "quarantine.tsv"

COLUMN_NAMES = ("split", "name", "reason")

SPLITS = ("train", "val")

ESCAPES = {"\\": r"\\", "\t": r"\t", "\n": r"\n", "\r": r"\r"}
"""Characters that would break the line of a name, and their replacements in the file."""

Entries = dict[str, dict[str, str]]
"""Split -> name in the index -> reason."""


def read_quarantine(data_dir: str | Path) -> Entries:
    """Return the entries of ``data_dir``/quarantine.tsv; none where the file does not exist.

    In a name, \\t, \\n, \\r and \\\\ mean tab, newline, carriage return and backslash. Raises UserError with the number
    of a line that is not split, tab, name, tab, reason.
    """
    file = Path(data_dir) / FILE
    entries: Entries = {split: {} for split in SPLITS}
    if not file.exists():
        return entries
    lines = [line.rstrip("\r") for line in read_text(file).split("\n")]
    if tuple(lines[0].split("\t")) != COLUMN_NAMES:
        raise UserError(f"{file}, line 1: expected {', '.join(COLUMN_NAMES)} with tabs between.")
    for number, line in enumerate(lines[1:], start=2):
        fields = line.split("\t")
        if not line.strip():
            continue
        if len(fields) != len(COLUMN_NAMES) or fields[0] not in SPLITS or not fields[1]:
            raise UserError(f"{file}, line {number}: expected train or val, a name and a reason, with tabs between.")
        entries[fields[0]][_unescape(fields[1])] = fields[2]
    return entries


def write_quarantine(data_dir: str | Path, entries: Mapping[str, Mapping[str, str]]) -> Path:
    """Write exactly ``entries`` to ``data_dir``/quarantine.tsv, complete or not at all; return the file."""
    file = Path(data_dir) / FILE
    lines = ["\t".join(COLUMN_NAMES)]
    for split in SPLITS:
        for name, reason in sorted(entries.get(split, {}).items()):
            lines.append("\t".join((split, _escape(name), " ".join(reason.split()))))
    write_text(file, "\n".join(lines) + "\n")
    return file


def _escape(name: str) -> str:
    return name.translate(str.maketrans(ESCAPES))


def _unescape(text: str) -> str:
    """Undo :func:`_escape`; a backslash before any other character is a backslash."""
    characters = {escaped: character for character, escaped in ESCAPES.items()}
    return re.sub(r"\\[\\tnr]", lambda match: characters[match[0]], text)


def remove_quarantined(train: Index, quarantined: Mapping[str, str]) -> Index:
    """Return the training images that are not quarantined, with notes about the others.

    Raises UserError where a class loses all its images.
    """
    if not quarantined:
        return train
    names = list(train.names)
    kept = np.array([row for row, name in enumerate(names) if name not in quarantined], dtype=np.int64)
    if empty := np.flatnonzero(np.bincount(train.labels[kept], minlength=len(train.classes)) == 0).tolist():
        left = some([train.classes[label] for label in empty])
        raise UserError(f"{FILE} leaves no training image of {left}.\nReplace the images and verify again.")
    notes = (f"{len(train) - len(kept)} images of {FILE} are left out", *_note_unknown(quarantined.keys(), names))
    return replace(train.take(kept), notes=train.notes + notes)


def refuse_quarantined(val: Index, quarantined: Mapping[str, str]) -> Index:
    """Return the validation images, with a note about unknown names. Raises UserError where an image is quarantined."""
    if not quarantined:
        return val
    names = set(val.names)
    if excluded := sorted(quarantined.keys() & names):
        raise UserError(
            f"{FILE} names validation images: {some(excluded)}.\n"
            "Validation is never shortened: replace the files, then run `python -m backbones verify` again."
        )
    return replace(val, notes=(*val.notes, *_note_unknown(quarantined.keys(), names)))


def _note_unknown(listed: Set[str], names: Collection[str]) -> Iterator[str]:
    if unknown := listed - set(names):
        is_plain = all(name.isascii() for name in unknown)
        alike = "" if is_plain else f".{describe_twins(unknown, names)}"
        yield f"{len(unknown)} names of {FILE} are not in the data set: {show_some(sorted(unknown))}{alike}"
