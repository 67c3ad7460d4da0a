"""Decode every image of a data set once, before training does for weeks.

Prints what there is, and writes the bad images to DATA_DIR/quarantine.tsv, which training leaves out. Equal images and
unusual kinds are remarks. Bad images, and counts that are not ImageNet's, end with status 1. JPEG and WebP files that
decode, but lost a part of their data, are bad. A changed byte that shifts nothing is not found: that takes a list of
checksums.
"""

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from backbones.command_line import parse
from backbones.dataset.damage import require_damage_check
from backbones.dataset.index import some
from backbones.dataset.quarantine import FILE, Entries, read_quarantine
from backbones.dataset.splits import data_folder, train_and_val
from backbones.dataset.verification.exclusion import exclude_bad_images, select_hand_added
from backbones.dataset.verification.findings import Findings, SplitFindings, collect
from backbones.dataset.verification.survey import survey
from backbones.dataset.workers import processes, usable_cores
from backbones.files import json_text, require_output_file, write_text
from backbones.recipe import LayoutName, require_positive
from backbones.terminal import STDERR, say, table, write

STATUS_WRONG_DATA = 1
"""Exit status where an image is bad or a count is wrong."""

MAX_BAD_IMAGES = 20
"""Bad images on the terminal; the files list all."""

MAX_EQUAL_IMAGES = 4
"""Names of equal images on the terminal."""


@dataclass(frozen=True)
class Options:
    """Options of `verify`."""

    data_dir: str = field(metadata={"positional": "DATA_DIR"})
    """Folder of the data set, or the output of `prepare`."""
    layout: LayoutName | None = None
    """Layout of the data set, where the folder holds more than one; unset: recognized by its files."""
    workers: int = field(default_factory=usable_cores)
    """Number of processes."""
    json: str | None = None
    """File to write all findings to."""

    def __post_init__(self) -> None:
        require_positive(self, "--", "workers")


def main(arguments: Sequence[str]) -> None:
    """Verify, print, write the files, and exit with status 1 where something is wrong."""
    options = parse(Options, arguments, prog="python -m backbones verify", description=__doc__ or "")
    require_output_file("--json", options.json)
    require_damage_check()
    root = data_folder(options.data_dir)
    before = read_quarantine(root)
    findings = verify(root, options.workers, options.layout)
    write("\n".join(report(findings)))
    if options.json:
        write_text(Path(options.json), json_text(findings.to_dict(), indent=1) + "\n")
    entries = exclude_bad_images(root, before, findings)
    for label, text in _describe_quarantine(root, before, entries):
        say(label, text)
    if not findings.good:
        sys.exit(STATUS_WRONG_DATA)


def verify(root: Path, workers: int, layout: LayoutName | None = None) -> Findings:
    """Check every image in ``root``, with a progress bar on stderr."""
    with processes(workers) as executor:
        train, val = train_and_val(root, layout=layout, obey_quarantine=False, executor=executor)
        start = time.perf_counter()
        with STDERR.task("verifying", len(train) + len(val), unit="images") as task:

            def show(done: int) -> None:
                task.update(done, [f"{done / (time.perf_counter() - start):.0f} images/s"])

            surveys = survey({"train": train, "val": val}, executor=executor, workers=workers, seen=show)
        return collect(surveys, seconds=time.perf_counter() - start, workers=workers)


def report(findings: Findings) -> Iterator[str]:
    """Yield the findings: a table, and a line for each fact."""
    splits = findings.splits
    yield table([["", *splits], *_list_rows(list(splits.values()))], "l" + "r" * len(splits))
    yield ""
    bad = [f"bad image   {each.file}: {each.reason}" for split in splits.values() for each in split.bad.values()]
    yield from bad[:MAX_BAD_IMAGES]
    if len(bad) > MAX_BAD_IMAGES:
        yield f"bad image   and {len(bad) - MAX_BAD_IMAGES} more"
    yield from (f"note        {note}" for note in findings.notes)
    yield from (f"remark      {line}" for line in _describe_duplicates(findings.duplicates))
    yield from (f"count       {count}" for count in findings.counts)
    rate, duration = findings.images_per_second, timedelta(seconds=round(findings.seconds))
    speed = f"{rate:.0f} images/s, {rate / findings.workers:.0f} by each worker"
    yield f"result      {'all is well' if findings.good else 'something is wrong'}; it took {duration} ({speed})"


def _list_rows(splits: Sequence[SplitFindings]) -> Iterator[list[object]]:
    """Yield the lines of the table: a title and a cell for each split."""

    def line(title: str, cell: Callable[[SplitFindings], object]) -> list[object]:
        return [title, *map(cell, splits)]

    yield line("images", lambda split: split.images)
    yield line("classes", lambda split: split.classes)
    yield line("bad", lambda split: len(split.bad))
    yield line("bytes, min/median/max", lambda split: _format_spread(split.file_size))
    yield line("shorter side, min/median/max", lambda split: _format_spread(split.shorter_side))
    yield line("longer side, min/median/max", lambda split: _format_spread(split.longer_side))
    for kind in dict.fromkeys(kind for split in splits for kind in split.kinds):
        yield line(kind, lambda split, kind=kind: split.kinds.get(kind, 0))
    for text in dict.fromkeys(text for split in splits for text in split.remarks):
        yield line(text, lambda split, text=text: split.remarks[text].images if text in split.remarks else 0)


def _format_spread(spread: Sequence[int]) -> str:
    return "/".join(map(str, spread))


def _describe_duplicates(groups: Mapping[str, list[list[str]]]) -> Iterator[str]:
    """Yield a line for each kind of problem with its groups of equal images."""
    for where, found in groups.items():
        if found:
            named = some([" = ".join(_shorten(group)) for group in found])
            yield f"{_count_images(len(found))} more than once {where}: {named}"


def _shorten(names: list[str]) -> list[str]:
    more = len(names) - MAX_EQUAL_IMAGES
    return names if more <= 0 else [*names[:MAX_EQUAL_IMAGES], f"{more} more"]


def _describe_quarantine(root: Path, before: Entries, entries: Entries) -> Iterator[tuple[str, str]]:
    """Yield lines about the list of bad images, as label and text."""
    if entries["train"]:
        yield "quarantine", f"{root / FILE}: training leaves out {_count_images(len(entries['train']))}"
    if entries["val"]:
        yield "validation", f"training refuses to run until the bad images of val ({len(entries['val'])}) are replaced"
    if kept := sum(len(select_hand_added(listed)) for listed in before.values()):
        yield "quarantine", f"kept, since added by hand: {_count_images(kept)}"
    if free := [f"{name}/{image}" for name, images in before.items() for image in images if image not in entries[name]]:
        yield "quarantine", f"no longer listed, because they are good or gone: {some(free)}"


def _count_images(count: int) -> str:
    return f"{count} image{'s' if count != 1 else ''}"
