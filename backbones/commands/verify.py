"""``python -m backbones verify DATA_DIR``: look at every image once, before training does for weeks.

Reads and decodes each image in full, prints what there is, and writes the bad ones to DATA_DIR/quarantine.tsv, which
training leaves out. Equal images and odd kinds are remarks; bad images and counts that are not ImageNet's end it with
status 1. A changed byte with which the image still decodes is not found: that takes a list of checksums from elsewhere.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Self

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from backbones.dataset.index import Index, some
from backbones.dataset.quarantine import FILE, Entries, read_quarantine, write_quarantine
from backbones.dataset.splits import data_folder, train_and_val
from backbones.dataset.verification import Remark, Survey, duplicates, miscounts, sort_duplicates, survey
from backbones.dataset.workers import processes
from backbones.errors import UserError, require_folder_for

WRONG, INTERRUPTED = 1, 130
"""Exit statuses."""

SHOWN = 20
"""Bad images on the terminal; the files list all."""

NAMED = 4
"""Equal images on the terminal."""

OURS = "verify: "
"""How the reasons of our own rows in the list begin; any other row is a person's, and stays."""

REMARKS = {
    Remark.PROGRESSIVE: "progressive",
    Remark.TURNED: "EXIF orientation (ignored)",
    Remark.MISNAMED: "named as another format",
    Remark.TRAILING: "trailing bytes",
    Remark.ENDLESS: "no end mark",
}

Findings = dict[str, Any]
"""What --json writes."""


def main(arguments: Sequence[str]) -> None:
    """Verify, print, write the files, and exit with status 1 where something is wrong."""
    options = _parser().parse_args(arguments)
    if options.workers < 1:
        raise UserError(f"--workers {options.workers} must be positive.")
    require_folder_for("--json", options.json)
    root = data_folder(options.data_dir)
    before = read_quarantine(root)
    try:
        findings = _look(root, options.workers)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted: nothing was written\n")
        sys.exit(INTERRUPTED)
    show(report(findings))
    if options.json:
        _write_json(Path(options.json), findings)
    show(update_quarantine(root, before, findings))
    if not findings["good"]:
        sys.exit(WRONG)


def collect(surveys: Mapping[str, Survey], *, seconds: float, workers: int = 1) -> Findings:
    """Return everything that the surveys of the splits have found, in types that JSON knows."""
    splits = {name: found.index for name, found in surveys.items()}
    count = sum(map(len, splits.values()))
    wrong_counts = miscounts(splits)
    groups = sort_duplicates(duplicates(surveys), splits)
    return {
        "good": not wrong_counts and not any(found.reasons for found in surveys.values()),
        "splits": {name: _describe(found) for name, found in surveys.items()},
        "duplicates": {
            where: [[f"{image.split}/{splits[image.split].names[image.row]}" for image in group] for group in found]
            for where, found in groups.items()
        },
        "counts": wrong_counts,
        "notes": [note for index in splits.values() for note in index.notes],
        "seconds": round(seconds, 3),
        "workers": workers,
        "images_per_second": round(count / max(seconds, 1e-9), 1),
    }


def report(findings: Findings) -> str:
    """Return the findings as a table and the lines that go with it."""
    splits = findings["splits"]
    table = [
        f"{title:<30}" + "".join(f"{cell:>24}" for cell in cells) for title, *cells in [["", *splits], *_rows(splits)]
    ]
    bad = [
        f"bad image   {each['file']}: {each['reason']}" for split in splits.values() for each in split["bad"].values()
    ]
    more = [f"bad image   and {len(bad) - SHOWN} more"] if len(bad) > SHOWN else []
    lines = [f"note        {note}" for note in findings["notes"]]
    lines += [f"remark      {line}" for line in _equal(findings["duplicates"])]
    lines += [f"count       {count}" for count in findings["counts"]]
    return "\n".join([*table, "", *bad[:SHOWN], *more, *lines, _result(findings)]) + "\n"


def update_quarantine(root: Path, before: Entries, findings: Findings) -> str:
    """Write the bad images to the list in ``root`` where that changes it, and return what to say of it.

    What a person has listed stays, with the reason that was given.
    Raises UserError where the list cannot be written.
    """
    bad = {
        split: {image: OURS + each["reason"] for image, each in found["bad"].items()}
        for split, found in findings["splits"].items()
    }
    entries = {split: bad[split] | _of_a_person(listed) for split, listed in before.items()}
    if entries != before:
        try:
            write_quarantine(root, entries)
        except OSError as error:
            raise UserError(
                f"{root / FILE} cannot be written: {error.strerror}.\n"
                f"`python -m backbones prepare {root} --out INDEX` gives the list a place: then verify INDEX."
            ) from None
    return "".join(f"{line}\n" for line in _about_quarantine(root, before, entries))


def _of_a_person(listed: Mapping[str, str]) -> dict[str, str]:
    """Return the entries that `verify` has not written."""
    return {image: reason for image, reason in listed.items() if not reason.startswith(OURS)}


def _about_quarantine(root: Path, before: Entries, entries: Entries) -> Iterator[str]:
    """Yield what to say of the list."""
    if entries["train"]:
        yield f"quarantine  {root / FILE}: training leaves out {_images(len(entries['train']))}"
    if entries["val"]:
        yield f"validation  training refuses to run until the bad images of val ({len(entries['val'])}) are replaced"
    if kept := sum(len(_of_a_person(listed)) for listed in before.values()):
        yield f"quarantine  kept as a person has listed {'it' if kept == 1 else 'them'}: {_images(kept)}"
    if free := [f"{name}/{image}" for name, images in before.items() for image in images if image not in entries[name]]:
        yield f"quarantine  no longer listed, because they are good or gone: {some(free)}"


def _look(root: Path, workers: int) -> Findings:
    with processes(workers) as executor:
        train, val = train_and_val(root, obey_quarantine=False, executor=executor)
        splits: dict[str, Index] = {"train": train, "val": val}
        with Speedometer(len(train) + len(val)) as speed:
            surveys = survey(splits, executor=executor, workers=workers, seen=speed.seen)
            return collect(surveys, seconds=speed.elapsed, workers=workers)


def _describe(found: Survey) -> Findings:
    """Return the findings of one split."""
    index, usable = found.index, found.usable
    rows = {text: found.rows_with(remark).tolist() for remark, text in REMARKS.items()}
    files = {index.names[row]: index.describe(row) for row in found.reasons}
    return {
        "images": len(index),
        "classes": len(index.classes),
        "bad": {name: {"file": files[name], "reason": reason} for name, reason in found.bad.items()},
        "kinds": found.count_kinds(),
        "remarks": {
            text: {"images": len(matching), "first": [index.names[row] for row in matching[:5]]}
            for text, matching in rows.items()
            if matching
        },
        "bytes": _spread(index.lengths),
        "shorter side": _spread(found.sizes[usable].min(axis=1)),
        "longer side": _spread(found.sizes[usable].max(axis=1)),
    }


def _spread(numbers: np.ndarray) -> list[int]:
    """Return minimum, median and maximum."""
    return [int(numbers.min()), int(np.median(numbers)), int(numbers.max())] if len(numbers) else []


def _rows(splits: Findings) -> Iterator[list[str]]:
    """Yield the lines of the table: a title and a cell for each split."""

    def line(title: str, cell: Callable[[Findings], object]) -> list[str]:
        return [title, *(str(cell(split)) for split in splits.values())]

    yield line("images", lambda split: split["images"])
    yield line("classes", lambda split: split["classes"])
    yield line("bad", lambda split: len(split["bad"]))
    for title in ("bytes", "shorter side", "longer side"):
        yield line(f"{title}, min/median/max", lambda split, title=title: "/".join(map(str, split[title])))
    for kind in _all_keys(splits, "kinds"):
        yield line(kind, lambda split, kind=kind: split["kinds"].get(kind, 0))
    for text in _all_keys(splits, "remarks"):
        yield line(text, lambda split, text=text: split["remarks"].get(text, {"images": 0})["images"])


def _all_keys(splits: Findings, title: str) -> list[str]:
    """Return what any of the splits has, each once."""
    return list(dict.fromkeys(key for split in splits.values() for key in split[title]))


def _result(findings: Findings) -> str:
    rate, took = findings["images_per_second"], timedelta(seconds=round(findings["seconds"]))
    speed = f"{rate:.0f} images/s, {rate / findings['workers']:.0f} by each worker"
    return f"result      {'all is well' if findings['good'] else 'something is wrong'}; it took {took} ({speed})"


def _equal(groups: Mapping[str, list[list[str]]]) -> list[str]:
    """Say which images are the same, by what that spoils."""
    return [
        f"{_images(len(found))} more than once {where}: {some([' = '.join(_first(group)) for group in found])}"
        for where, found in groups.items()
        if found
    ]


def _first(names: list[str]) -> list[str]:
    return names if len(names) <= NAMED else [*names[:NAMED], f"{len(names) - NAMED} more"]


def _write_json(file: Path, findings: Findings) -> None:
    try:
        file.write_text(json.dumps(findings, indent=1) + "\n")
    except OSError as error:
        raise UserError(f"--json {file} cannot be written: {error.strerror}.") from None


def _images(count: int) -> str:
    return f"{count} image{'s' if count != 1 else ''}"


def show(text: str) -> None:
    """Write to the terminal; file names need not be valid text, and the terminal need not know every character."""
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(text.encode(encoding, errors="backslashreplace").decode(encoding))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m backbones verify", description=__doc__)
    parser.add_argument("data_dir", metavar="DATA_DIR", help="folder of the data set, or what `prepare` made of it")
    cores = len(os.sched_getaffinity(0))
    parser.add_argument(
        "--workers", type=int, default=cores, help="processes (default: %(default)s, one for each core)"
    )
    parser.add_argument("--json", metavar="FILE", help="write all findings to this file, too")
    return parser


class Speedometer:
    """Images per second and the time left: a bar on a terminal; elsewhere one plain line every ``seconds``."""

    def __init__(self, total: int, *, seconds: float = 10.0) -> None:
        self.total, self.seconds = total, seconds
        self.done = 0
        self.start = self.printed = time.perf_counter()
        self.console = Console(stderr=True, soft_wrap=True, highlight=False)
        self.bar = Progress(BarColumn(), TextColumn("{task.description}"), console=self.console, transient=True)
        self.task = self.bar.add_task("starting", total=total)

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar.live.is_started:
            self.bar.stop()

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self.start

    def seen(self, count: int) -> None:
        """Show that ``count`` more images are done."""
        self.done += count
        now = time.perf_counter()
        if self.console.is_terminal:
            self.bar.update(self.task, completed=self.done, description=self._text())
        elif now - self.printed >= self.seconds:
            self.printed = now
            self.console.print(self._text())

    def _text(self) -> str:
        rate = self.done / max(self.elapsed, 1e-9)
        left = timedelta(seconds=round((self.total - self.done) / rate))
        return f"{self.done}/{self.total} images  {rate:.0f} images/s  {left} left"
