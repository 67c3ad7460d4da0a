"""The images that a person or `verify` has ruled out: quarantine.tsv in the folder of the data set."""

import os
import re
from collections.abc import Iterator, Mapping, Set
from dataclasses import replace
from pathlib import Path

import numpy as np

from backbones.dataset.index import Index, some
from backbones.errors import UserError

FILE = "quarantine.tsv"

HEADER = ("split", "name", "reason")

SPLITS = ("train", "val")

ESCAPES = {"\\": r"\\", "\t": r"\t", "\n": r"\n", "\r": r"\r"}
"""Characters of a name that would break its line, and what stands for them there."""

Entries = dict[str, dict[str, str]]
"""Split -> name in the index -> reason."""


def read_quarantine(data_dir: str | Path) -> Entries:
    """Return the entries of ``data_dir``/quarantine.tsv; empty where there is no such file.

    In a name, a backslash and t, n, r or a second backslash stand for tab, newline, carriage return and backslash.
    Raises UserError that names the line where it is not split, tab, name, tab, reason.
    """
    file = Path(data_dir) / FILE
    entries: Entries = {split: {} for split in SPLITS}
    if not file.exists():
        return entries
    lines = [line.rstrip("\r") for line in os.fsdecode(file.read_bytes()).split("\n")]
    if tuple(lines[0].split("\t")) != HEADER:
        raise UserError(f"{file}, line 1: expected {', '.join(HEADER)} with tabs between.")
    for number, line in enumerate(lines[1:], start=2):
        fields = line.split("\t")
        if not line.strip():
            continue
        if len(fields) != len(HEADER) or fields[0] not in SPLITS or not fields[1]:
            raise UserError(f"{file}, line {number}: expected train or val, a name and a reason, with tabs between.")
        entries[fields[0]][_unescape(fields[1])] = fields[2]
    return entries


def write_quarantine(data_dir: str | Path, entries: Mapping[str, Mapping[str, str]]) -> Path:
    """Write exactly ``entries`` to ``data_dir``/quarantine.tsv, which appears complete or not at all; return it."""
    file = Path(data_dir) / FILE
    lines = ["\t".join(HEADER)]
    for split in SPLITS:
        for name, reason in sorted(entries.get(split, {}).items()):
            lines.append("\t".join((split, _escape(name), " ".join(reason.split()))))
    partial = file.with_name(f"{FILE}.partial")
    with partial.open("wb") as opened:
        opened.write(os.fsencode("\n".join(lines) + "\n"))
        opened.flush()
        os.fsync(opened.fileno())
    partial.replace(file)
    return file


def _escape(name: str) -> str:
    return name.translate(str.maketrans(ESCAPES))


def _unescape(text: str) -> str:
    """Undo :func:`_escape`; a backslash before anything else stands for itself."""
    meant = {escaped: character for character, escaped in ESCAPES.items()}
    return re.sub(r"\\[\\tnr]", lambda match: meant[match[0]], text)


def without_quarantined(train: Index, quarantined: Mapping[str, str]) -> Index:
    """Return the training images that are not quarantined, with notes about the others.

    Raises UserError where a class has no image left.
    """
    if not quarantined:
        return train
    names = list(train.names)
    kept = np.array([row for row, name in enumerate(names) if name not in quarantined], dtype=np.int64)
    if empty := np.flatnonzero(np.bincount(train.labels[kept], minlength=len(train.classes)) == 0).tolist():
        left = some([train.classes[label] for label in empty])
        raise UserError(f"{FILE} leaves no training image of {left}.\nReplace the images and verify again.")
    notes = (f"{len(train) - len(kept)} images of {FILE} are left out", *_unknown(quarantined.keys() - set(names)))
    return replace(train.take(kept), notes=train.notes + notes)


def with_none_quarantined(val: Index, quarantined: Mapping[str, str]) -> Index:
    """Return the validation images, with a note about names that are not there; UserError where one is quarantined."""
    if not quarantined:
        return val
    names = set(val.names)
    if ours := sorted(quarantined.keys() & names):
        raise UserError(
            f"{FILE} names validation images: {some(ours)}.\n"
            "Validation is never shortened: replace the files, then run `python -m backbones verify` again."
        )
    return replace(val, notes=(*val.notes, *_unknown(quarantined.keys() - names)))


def _unknown(names: Set[str]) -> Iterator[str]:
    if names:
        yield f"{len(names)} names of {FILE} are not in the data set: {some(sorted(names))}"
