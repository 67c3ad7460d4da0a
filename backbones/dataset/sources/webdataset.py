"""WebDataset: tar shards with KEY.jpg and KEY.cls (the number or name of a class), read in place."""

import codecs
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from functools import partial
from pathlib import Path, PurePosixPath

from backbones.dataset.class_names import describe_twins
from backbones.dataset.index import Index, Row, Split, find_repeated, make_index, some
from backbones.dataset.sources.prepared import fits as is_prepared
from backbones.dataset.sources.samples import Sample, Samples, join_samples, read_samples
from backbones.dataset.workers import spread
from backbones.errors import UserError

SHAPE = "train-000000.tar ... and val-000000.tar ..., of KEY.jpg and KEY.cls (WebDataset)"

NAMES: dict[Split, str] = {"train": "train", "val": "val|validation"}
"""Words for the split in the names of shards."""

CLASS_FILES = ("classes.txt", "classnames.txt")
"""Optional files with the names of the classes: line k, counted from 0, is class k."""

OFFICIAL_ARCHIVES = ("ilsvrc2012_img_", "ilsvrc2012_bbox_", "ilsvrc2012_devkit_")
"""Beginnings of the names of the official archives in lower case. They are no shards."""


def fits(root: Path) -> bool:
    """Return whether there are shards that are not part of a prepared index."""
    return not is_prepared(root) and any(_list_shards(root, split) for split in NAMES)


def scan(root: Path, split: Split, executor: Executor | None = None) -> Index:
    """Return the images of one split of the shards in ``root``."""
    shards = find_shards(root, split)
    if not shards:
        raise UserError(f"{root} has no shards of {split}.\nExpected {SHAPE}.")
    _require_sequence(root, shards)
    return scan_shards(root, shards, class_names(root), executor, split=split)


def find_shards(root: Path, split: Split) -> list[Path]:
    """Return the archives in ``root`` with the word of ``split`` in their names, sorted.

    Endings such as .tgz or .tar.part are included, and :func:`scan_shards` refuses them. Raises UserError where a
    name has the words of both splits.
    """
    train, val = ({path.name for path in _list_shards(root, each)} for each in NAMES)
    if both := sorted(train & val):
        raise UserError(
            f"{root} has shards whose names say both train and val: {some(both)}.\n"
            "Rename them, or name the shards you mean with `python -m backbones prepare --train ... --val ...`."
        )
    return _list_shards(root, split)


def scan_shards(
    root: Path,
    shards: Sequence[Path],
    names: Sequence[str] | None,
    executor: Executor | None,
    *,
    split: Split = "train",
) -> Index:
    """Return the images of ``shards``; ``names`` are those of the classes 0, 1, ... if the shards have numbers.

    Without names, a class is named by its number, padded with zeros so that names and numbers have one order. Members
    such as KEY.mask.png beside KEY.jpg, and training images without a class, are left out with a note. Raises
    UserError with shard and key for a class without image, a repetition, an image of ``val`` without class, and for a
    shard whose name does not end in .tar (upper or lower case).
    """
    if missing := [str(path) for path in shards if not path.is_file()]:
        raise UserError(f"Shards that do not exist: {some(missing)}.")
    if wrong := [str(path) for path in shards if path.suffix.lower() != ".tar"]:
        raise UserError(
            f"Shards whose names do not end in .tar: {some(wrong)}.\n"
            "Decompress those that are compressed (gunzip, unzstd), and complete, rename or remove the others."
        )
    found = join_samples(spread(partial(read_samples, split=split), list(shards), executor))
    samples = found.samples
    if not samples:
        raise _no_samples_error(shards, found.unlabelled)
    _refuse_repeated(samples)
    class_of = _name_classes(samples, names)
    classes = tuple(sorted(set(class_of.values()) if names is None else names))
    if empty := sorted(set(classes) - set(class_of.values())):
        raise UserError(f"{root}: classes without images: {some(empty)}.\nRemove them from the list, or add shards.")
    number = {name: k for k, name in enumerate(classes)}
    rows = _create_rows(root, samples, class_of, number)
    return make_index(root, classes, rows, tuple(_write_notes(root, found)))


def class_names(root: Path) -> list[str] | None:
    """Return the names in ``root``/classes.txt or classnames.txt; None where neither exists."""
    file = next((root / name for name in CLASS_FILES if (root / name).is_file()), None)
    return None if file is None else read_class_names(file)


def read_class_names(file: Path) -> list[str]:
    """Return the lines of ``file``. Raises UserError where one is empty or repeated."""
    if not file.is_file():
        raise UserError(f"There is no file {file} with the names of the classes.")
    content = file.read_bytes().removeprefix(codecs.BOM_UTF8)
    names = [line.strip() for line in os.fsdecode(content).rstrip().split("\n")]
    if "" in names:
        raise UserError(f"{file}, line {names.index('') + 1}: the name of a class is missing.")
    if twice := find_repeated(names):
        raise UserError(f"{file} names two classes alike: {some(twice)}.")
    return names


def _list_shards(root: Path, split: Split) -> list[Path]:
    word = re.compile(rf"(?<![a-z])({NAMES[split]})(?![a-z]).*\.(tar|tgz)([^a-z].*)?\Z", re.IGNORECASE)
    others = (*OFFICIAL_ARCHIVES, ".")
    return sorted(
        path for path in root.iterdir() if word.search(path.name) and not path.name.lower().startswith(others)
    )


def _no_samples_error(shards: Sequence[Path], unlabelled: Sequence[str]) -> UserError:
    images = f", but {len(unlabelled)} images without a .cls: {some(unlabelled)}" if unlabelled else ""
    where = some([str(path) for path in shards])
    return UserError(f"{where}: they hold no images with classes{images}.\nExpected {SHAPE}.")


def _create_rows(
    root: Path, samples: Sequence[Sample], class_of: Mapping[str, str], number: Mapping[str, int]
) -> Iterator[Row]:
    for sample, name in zip(samples, _name_images(samples, class_of), strict=True):
        shard = sample.shard
        file = str(shard.relative_to(root)) if shard.is_relative_to(root) else str(shard.absolute())
        yield Row(number[class_of[sample.label]], name, file, sample.image.offset, sample.image.length)


def _name_images(samples: Sequence[Sample], class_of: Mapping[str, str]) -> list[str]:
    """Return CLASS/NAME for each image. NAME is the key without its folder where that is unique in the class."""
    short = [f"{class_of[each.label]}/{PurePosixPath(each.key).name}.{each.suffix}" for each in samples]
    repeated = frozenset(find_repeated(short))
    pairs = zip(samples, short, strict=True)
    return [f"{class_of[each.label]}/{each.key}.{each.suffix}" if name in repeated else name for each, name in pairs]


def _write_notes(root: Path, found: Samples) -> Iterator[str]:
    if found.beside:
        yield f"{root}: {len(found.beside)} members beside an image are left out: {some(found.beside)}"
    if found.unlabelled:
        total = len(found.samples) + len(found.unlabelled)
        names = some(found.unlabelled)
        yield f"{root}: {len(found.unlabelled)} of {total} images have no .cls and are left out of training: {names}"
    if found.clutter:
        yield f"{root}: {len(found.clutter)} members of folders that systems make are left out: {some(found.clutter)}"


def _refuse_repeated(samples: Iterable[Sample]) -> None:
    first: dict[str, Path] = {}
    for sample in samples:
        if sample.key in first:
            raise UserError(
                f"{sample.shard} and {first[sample.key]} both hold the key {sample.key!r}.\n"
                "Remove the second one if it is a copy; otherwise pack them again, with keys that differ."
            )
        first[sample.key] = sample.shard


def _name_classes(samples: Sequence[Sample], names: Sequence[str] | None) -> dict[str, str]:
    """Return the class name for each text in a .cls, which is a number or the name itself."""
    examples = {sample.label: sample for sample in samples}
    if not all(re.fullmatch(r"[+-]?\d+", text) for text in examples):
        listed = frozenset(examples if names is None else names)
        known = {text: text for text in examples if text in listed}
        alike = describe_twins(examples.keys() - known.keys(), listed)
        _require_known(examples, known, f"is not in the list of classes.{alike}")
        return known
    count = len(names) if names is not None else 1 + max(int(text) for text in examples)
    inside = {text: int(text) for text in examples if 0 <= int(text) < count}
    _require_known(examples, inside, f"does not lie in [0, {count}).")
    width = len(str(count - 1))
    return {text: names[k] if names is not None else f"{k:0{width}d}" for text, k in inside.items()}


def _require_known(examples: Mapping[str, Sample], known: Mapping[str, object], reason: str) -> None:
    for text, sample in examples.items():
        if text not in known:
            raise UserError(f"{sample.shard}: the class {text!r} of {sample.key!r} {reason}")


def _require_sequence(root: Path, shards: Sequence[Path]) -> None:
    """Raise UserError where a number is missing in a series of shards: the loss would go unnoticed."""
    series: dict[tuple[str, str], set[int]] = defaultdict(set)
    for path in shards:
        if match := re.fullmatch(r"(.*?)(\d+)((?:-of-\d+)?\.tar)", path.name, re.IGNORECASE):
            series[match[1], match[3].lower()].add(int(match[2]))
    for (before, after), numbers in series.items():
        total = re.search(r"-of-(\d+)", after)
        whole = set(range(int(total[1]))) if total else set(range(min(numbers), max(numbers) + 1))
        if missing := sorted(whole - numbers):
            lost = some([str(number) for number in missing])
            raise UserError(
                f"{root} lacks shards of {before}*{after}: number {lost}.\n"
                "Copy them, or name the shards you mean with `python -m backbones prepare --train ... --val ...`."
            )
