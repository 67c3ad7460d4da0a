"""``python -m backbones prepare SRC --out INDEX``: any layout of a data set as train.npz and val.npz, once.

Reads where each image lies, which then takes no time at the start of a run. With --resize the images are also
written anew, smaller, as WebDataset shards. Train on the result with --data-dir INDEX.
"""

import fcntl
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from shlex import quote
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from backbones.command_line import parse
from backbones.commands.verify import show
from backbones.darknet.labels import synsets
from backbones.dataset.index import Index, Split, places_digest, read_index, write_index
from backbones.dataset.preparation.shards import Written, lacking, remove_partial, shard_files, shards, write_shard
from backbones.dataset.preparation.shrink import encoder
from backbones.dataset.preparation.subset import at_most, choose_classes, of_classes
from backbones.dataset.sources.braces import expand
from backbones.dataset.sources.folder import VALIDATION_FOLDERS
from backbones.dataset.sources.prepared import (
    ARCHIVES,
    REQUEST,
    changed,
    describe_archives,
    index_file,
    is_complete,
    read_request,
)
from backbones.dataset.sources.webdataset import (
    CLASS_FILES,
    class_names,
    find_shards,
    read_class_names,
    scan_shards,
)
from backbones.dataset.splits import after_quarantine, data_folder, naming_files, require_same_classes, train_and_val
from backbones.dataset.workers import JOBS_PER_WORKER, as_they_finish, processes
from backbones.errors import UserError
from backbones.recipe import require

FORMAT = 1
"""Version of the plan and of how shards are written."""

LOCK = ".lock"
"""The file that a running `prepare` holds."""

SECONDS = 10.0
"""Between two lines of progress where there is no terminal."""


def _processors() -> int:
    return len(os.sched_getaffinity(0))


@dataclass(frozen=True)
class Options:
    """What to prepare, and what becomes of it."""

    source: str
    """Folder of the data set; `prepare SRC` says the same."""
    out: str
    """Folder to write: train.npz, val.npz and, with --resize, the shards."""
    train: str | None = None
    """Training shards as a list in braces, below SRC: train-{000000..001281}.tar."""
    val: str | None = None
    """Validation shards as a list in braces, below SRC."""
    class_names: str | None = None
    """Names of the classes 0, 1, ... of shards: a text file with one in each line, or imagenet for the synsets."""
    resize: int | None = None
    """Write the images with a short side of at most so many pixels, as JPEG in shards."""
    quality: int = 90
    """JPEG quality of --resize, 1 to 100."""
    classes: int | None = None
    """Take so many of the classes only."""
    per_class: int | None = None
    """Take so many training images of a class only; validation is never shortened."""
    seed: int = 0
    """Decides which classes and images --classes and --per-class take."""
    workers: int = field(default_factory=_processors)
    """Processes that read and write; they change nothing in the result. Unset: one for each processor."""

    def __post_init__(self) -> None:
        require(1 <= self.quality <= 100, "quality", self.quality, "must lie in [1, 100]")
        for option in ("resize", "per_class", "workers"):
            value = getattr(self, option)
            require(value is None or value > 0, option, value, "must be positive")
        require((self.train is None) == (self.val is None), "train", self.train, "and val need each other")


def main(arguments: Sequence[str]) -> None:
    """Prepare as the command line says; a killed run goes on when the same command is given again."""
    options = parse(Options, _words(arguments), description=__doc__ or "")
    source, out = data_folder(options.source), Path(options.out).expanduser()
    _require_own_folder(source, out)
    try:
        with processes(options.workers) as executor:
            _prepare(options, source, out, executor)
    except OSError as error:
        where = error.filename or out
        raise UserError(f"{where}: {error.strerror}.\nMend it and give the same command again to go on.") from error
    except BrokenProcessPool:
        raise UserError("A worker was killed, perhaps for want of memory.\nGo on with fewer --workers.") from None


def _words(arguments: Sequence[str]) -> list[str]:
    """Spell the data set, which may stand anywhere, out as an option."""
    words: list[str] = []
    for before, word in pairwise(["", *arguments]):
        is_value = before.startswith("-") and "=" not in before
        words += [word] if is_value or word.startswith("-") else ["--source", word]
    for option, what in (("--source", "the data set is missing"), ("--out", "--out is missing")):
        is_given = any(word.partition("=")[0] == option for word in words)
        if not is_given and not {"-h", "--help"} & set(words):
            raise UserError(f"{what}: python -m backbones prepare SRC --out INDEX.")
    return words


def _prepare(options: Options, source: Path, out: Path, executor: Executor | None) -> None:
    _say(f"reading     {source}")
    train, val = _chosen(options, *_splits(options, source, executor))
    _say("".join(f"note        {note}\n" for note in (*train.notes, *val.notes)), end="")
    out.mkdir(parents=True, exist_ok=True)
    with _one_at_a_time(out):
        plan = _plan(options, source, train, val)
        _require_plan(out, plan)
        before = _read_indexes(out)
        has_moved = options.resize is None and before is not None and _places(before) != _places((train, val))
        if before is not None and not has_moved and is_complete(out):
            _say(f"{out} is complete already: nothing was done.")
        else:
            if options.resize is not None:
                train, val = _write_smaller(options, out, (train, val), executor)
            _write_indexes(out, plan, (train, val))
            if has_moved:
                _say("the images lie elsewhere now: the index was written anew.")
    _summarize(out)


def _splits(options: Options, source: Path, executor: Executor | None) -> tuple[Index, Index]:
    """Read the data set as its layout says, or the shards as the options say."""
    if options.train is None and options.class_names is None:
        return train_and_val(source, executor=executor)
    names = _class_names(options, source)
    with naming_files():
        train = scan_shards(source, _shards(source, "train", options.train), names, executor)
        val = scan_shards(source, _shards(source, "val", options.val), names, executor)
    require_same_classes(train, val)
    return after_quarantine(source, train, val)


def _class_names(options: Options, source: Path) -> list[str] | None:
    if options.class_names is None:
        return class_names(source)
    return list(synsets()) if options.class_names == "imagenet" else read_class_names(Path(options.class_names))


def _shards(source: Path, split: Split, braces: str | None) -> list[Path]:
    found = find_shards(source, split) if braces is None else [source / name for name in expand(braces)]
    if not found:
        raise UserError(f"--class-names is for shards, and {source} has none of {split}.")
    return found


def _chosen(options: Options, train: Index, val: Index) -> tuple[Index, Index]:
    """Return the part that --classes and --per-class ask for."""
    if options.per_class is not None:
        train = at_most(train, options.per_class, options.seed)
    if options.classes is not None:
        classes = choose_classes(train.classes, options.classes, options.seed)
        train, val = of_classes(train, classes), of_classes(val, classes)
    return train, val


def _plan(options: Options, source: Path, train: Index, val: Index) -> dict[str, Any]:
    """Return everything that the result depends on."""
    chosen = {name: getattr(options, name) for name in ("resize", "quality", "classes", "per_class", "seed")}
    images = {"source": str(source.resolve()), "train images": train.fingerprint, "val images": val.fingerprint}
    return {"format": FORMAT, **images, **chosen, "encoder": encoder() if options.resize else None}


def _require_plan(out: Path, plan: dict[str, Any]) -> None:
    """Write the plan into a new folder; refuse the folder of another plan."""
    if not (out / REQUEST).exists():
        _write_plan(out, plan)
    theirs = read_request(out)
    if other := [f"{name} was {theirs.get(name)}, now {plan[name]}" for name in plan if theirs.get(name) != plan[name]]:
        raise UserError(
            f"{out} was begun in another way: {'; '.join(other)}.\nChoose another --out, or remove the folder."
        )


def _write_plan(out: Path, plan: dict[str, Any]) -> None:
    partial = out / f"{REQUEST}.partial"
    partial.write_text(json.dumps(plan, indent=2) + "\n")
    partial.replace(out / REQUEST)


def _read_indexes(out: Path) -> tuple[Index, Index] | None:
    """Return the indexes in ``out``, or None where one is missing or damaged."""
    try:
        return read_index(index_file(out, "train")), read_index(index_file(out, "val"))
    except UserError:
        return None


def _places(splits: tuple[Index, Index]) -> list[str]:
    return [places_digest(index) for index in splits]


def _write_indexes(out: Path, plan: dict[str, Any], splits: tuple[Index, Index]) -> None:
    """Write both indexes and then, in the plan, the state of the archives that they point into."""
    for split, index in _named(splits):
        write_index(index, index_file(out, split))
    archives = {split: describe_archives(out, index) for split, index in _named(splits)}
    _write_plan(out, plan | {ARCHIVES: archives})


def _write_smaller(
    options: Options, out: Path, splits: tuple[Index, Index], executor: Executor | None
) -> tuple[Index, Index]:
    """Write the shards that are lacking and return what they all hold; UserError lists what cannot be decoded."""
    remove_partial(out)
    _remove_changed(out)
    (out / CLASS_FILES[0]).write_bytes(os.fsencode("".join(f"{name}\n" for name in splits[0].classes)))
    how = {"short_side": options.resize or 0, "quality": options.quality}
    total = sum(len(rows) for split, index in _named(splits) for rows, _ in lacking(index, out, split))
    jobs = (shard for split, index in _named(splits) for shard in shards(index, out, split, **how))
    written = as_they_finish(write_shard, jobs, executor, JOBS_PER_WORKER * options.workers)
    if failures := [failure for shard in _counted(written, total) for failure in shard.failures]:
        listed = "".join(f"\n  {failure}" for failure in sorted(failures))
        raise UserError(
            f"{len(failures)} images cannot be used, so no index was written:{listed}\n"
            f"Run `python -m backbones verify {options.source}`, then `prepare` into a new folder."
        )
    train, val = (_of_shards(index, out, split, executor) for split, index in _named(splits))
    return train, val


def _remove_changed(out: Path) -> None:
    """Remove the shards that are no longer as they were written, so that they count as lacking."""
    if others := [*changed(out, "train"), *changed(out, "val")]:
        _say(f"shards of {out} that are gone or have changed, and are written anew: {len(others)}")
    for path in others:
        path.unlink(missing_ok=True)


def _named(splits: tuple[Index, Index]) -> Iterator[tuple[Split, Index]]:
    yield from zip(("train", "val"), splits, strict=True)


def _of_shards(index: Index, out: Path, split: Split, executor: Executor | None) -> Index:
    """Return the index of the shards that were written from ``index``."""
    found = scan_shards(out, shard_files(index, out, split), index.classes, executor)
    if found.labels.tolist() != index.labels.tolist():
        raise UserError(f"{out}: the shards of {split} are not those that were written.\nRemove the folder.")
    return found


def _counted(written: Iterator[Written], total: int) -> Iterator[Written]:
    """Pass on what is written, showing how far it is: a bar on a terminal, elsewhere a line now and then."""
    console = Console(soft_wrap=True, highlight=False)
    bar = (TextColumn("writing"), BarColumn(), MofNCompleteColumn(), TextColumn("images"), TimeRemainingColumn())
    with Progress(*bar, console=console, disable=not console.is_terminal) as progress:
        task, done = progress.add_task("writing", total=total), 0
        start = said = time.monotonic()
        for shard in written:
            done += shard.images
            progress.update(task, completed=done)
            if not console.is_terminal and time.monotonic() - said > SECONDS:
                said = time.monotonic()
                _say(f"writing     {done}/{total} images, {done / (said - start):.0f} images/s")
            yield shard


@contextmanager
def _one_at_a_time(out: Path) -> Iterator[None]:
    """Refuse a second `prepare` into the same folder while one is running."""
    with (out / LOCK).open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"Another `prepare` is writing to {out}.\nWait for it, or choose another --out.") from None
        yield


def _require_own_folder(source: Path, out: Path) -> None:
    """Refuse to write among files that are not ours."""
    if out.resolve() == source.resolve():
        raise UserError(f"--out {out} is the data set itself.\nChoose a folder of its own for the index.")
    splits = [source.resolve() / name for name in ("train", *VALIDATION_FOLDERS)]
    if any(out.resolve().is_relative_to(split) for split in splits):
        raise UserError(f"--out {out} lies among the class folders of the data set.\nChoose a folder outside of them.")
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out} is a file.\nChoose a folder.")
    others = [path.name for path in out.iterdir() if path.name != LOCK] if out.exists() else []
    if others and REQUEST not in others:
        raise UserError(f"--out {out} holds files that `prepare` has not written.\nChoose an empty or a new folder.")


def _summarize(out: Path) -> None:
    for split in ("train", "val"):
        index = read_index(index_file(out, split))
        counts = f"{len(index):,} images of {len(index.classes):,} classes"
        _say(f"{split:<11} {counts}, fingerprint {index.fingerprint}")
    _say(f"next        accelerate launch train_imagenet.py --data-dir {quote(str(out))}")


def _say(text: str, end: str = "\n") -> None:
    show(text + end)
    sys.stdout.flush()
