"""Samples of one WebDataset shard: KEY.jpg and KEY.cls, where a key ends at the first dot of a name."""

import os
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, NamedTuple

from backbones.dataset.index import SUFFIXES, Split, some
from backbones.dataset.sources.clutter import is_in_clutter
from backbones.dataset.sources.tar import Member, members
from backbones.errors import UserError

IMAGE_PARTS = frozenset({"image", "img"})
"""Parts PART of KEY.PART.jpg that name the image where there is no KEY.jpg."""

MAX_CLASS_BYTES = 1_000
"""Largest size of a .cls file."""


class Sample(NamedTuple):
    """One image, with its class as written in the shard."""

    shard: Path
    key: str
    image: Member
    suffix: str
    label: str


class Samples(NamedTuple):
    """Samples of one or more shards, and the names of what is left out."""

    samples: list[Sample]
    beside: list[str]
    """Members KEY.PART.jpg or KEY.PART.cls beside KEY.jpg: masks, thumbnails, other labels."""
    unlabelled: list[str]
    """Images without a .cls."""
    clutter: list[str]
    """Members of folders that systems make."""


@dataclass
class Parts:
    """Members of one key."""

    images: list[tuple[Member, str]] = field(default_factory=list)
    """Members KEY.jpg, with their ending in lower case."""
    labels: list[Member] = field(default_factory=list)
    """Members KEY.cls."""
    beside: list[Member] = field(default_factory=list)
    """Members KEY.PART.jpg and KEY.PART.cls."""
    others: list[str] = field(default_factory=list)
    """Names of all other members."""

    def add(self, member: Member, suffix: str) -> None:
        """Add a member by its ending, which may have dots."""
        if suffix == "cls":
            self.labels.append(member)
        elif suffix in SUFFIXES:
            self.images.append((member, suffix))
        elif suffix.rpartition(".")[2] in {"cls", *SUFFIXES}:
            self.beside.append(member)
        else:
            self.others.append(member.name)

    def choose_named_image(self) -> None:
        """Take KEY.image.jpg as the image where there is no KEY.jpg, but a KEY.cls."""
        if self.images or not self.labels:
            return
        named = [member for member in self.beside if split_name(member.name)[1].rpartition(".")[0] in IMAGE_PARTS]
        self.beside = [member for member in self.beside if member not in named]
        self.images = [(member, split_name(member.name)[1].rpartition(".")[2]) for member in named]


def read_samples(shard: Path, split: Split) -> Samples:
    """Return the samples of one shard.

    Images of ``train`` without a .cls are left out; ``val`` is never shortened. Raises UserError where it is ambiguous
    which member is the image or its class, and where one of them is missing.
    """
    clutter, parts = _sort_members(shard)
    for key, each in parts.items():
        each.choose_named_image()
        _require_one_image(shard, key, each)
    unlabelled = {key: each for key, each in parts.items() if each.images and not each.labels}
    if unlabelled and split == "val":
        raise _missing_class_error(shard, unlabelled)
    complete = {key: each for key, each in parts.items() if each.images and each.labels}
    with shard.open("rb") as opened:
        samples = [
            Sample(shard, key, *each.images[0], _read_label(opened, shard, key, each.labels[0]))
            for key, each in complete.items()
        ]
    beside = [member.name for each in parts.values() for member in each.beside]
    return Samples(samples, beside, [each.images[0][0].name for each in unlabelled.values()], clutter)


def join_samples(found: Iterable[Samples]) -> Samples:
    """Return the samples of several shards as one."""
    columns = list(zip(*found, strict=True)) or [[]] * len(Samples._fields)
    return Samples(*([item for part in column for item in part] for column in columns))


def split_name(name: str) -> tuple[str, str]:
    """Return the key, up to the first dot of the last part of ``name``, and the lower-case ending after it."""
    folder, slash, last = name.removeprefix("./").rpartition("/")
    key, _, suffix = last.partition(".")
    return (f"{folder}{slash}{key}", suffix.lower()) if key else ("", "")


def _sort_members(shard: Path) -> tuple[list[str], dict[str, Parts]]:
    """Return the names of members in folders of systems, and the others by key."""
    clutter: list[str] = []
    parts: defaultdict[str, Parts] = defaultdict(Parts)
    for member in members(shard):
        key, suffix = split_name(member.name)
        if is_in_clutter(member.name):
            clutter.append(member.name)
        elif key:
            parts[key].add(member, suffix)
    return clutter, parts


def _require_one_image(shard: Path, key: str, parts: Parts) -> None:
    """Raise UserError unless it is plain which member is the image and which its class."""
    images, labels = [member.name for member, _ in parts.images], [member.name for member in parts.labels]
    if len(images) > 1:
        raise UserError(
            f"{shard}: two images have the key {key!r}: {some(images)}. It is ambiguous which one the class is for.\n"
            f"Pack the shard again with one of them; {key}.mask.png and the like beside it are left out."
        )
    if len(labels) > 1:
        raise UserError(f"{shard}: two classes have the key {key!r}: {some(labels)}.\nPack the shard again with one.")
    if dotted := _find_dotted_keys(parts):
        raise _dot_error(shard, key, dotted)
    if parts.beside and not images:
        raise UserError(
            f"{shard}: {key!r} has no image {key}.jpg, only {_name(parts.beside)}: which member is the image is "
            "ambiguous, since a key ends at the first dot, as in WebDataset.\n"
            f"Pack the shard again with the image as {key}.jpg, and without dots in its keys."
        )
    if labels and not images:
        raise UserError(
            f"{shard}: a .cls without an image: {key}.\nPack the shard again with {key}.jpg, or without both."
        )


def _find_dotted_keys(parts: Parts) -> list[Member]:
    """Return the members that show that keys were meant to go on after the first dot: a class of its own."""
    dotted = [member for member in parts.beside if member.name.lower().endswith(".cls")]
    stems = {member.name.rpartition(".")[0] for member in parts.beside if member not in dotted}
    return [member for member in dotted if not parts.images or member.name.rpartition(".")[0] in stems]


def _dot_error(shard: Path, key: str, dotted: list[Member]) -> UserError:
    return UserError(
        f"{shard}: {_name(dotted)} has a dot in its key, but a key ends at the first dot: WebDataset reads a part "
        f"{dotted[0].name.rpartition('/')[2].partition('.')[2]!r} of the sample {key!r}, not a sample of its own.\n"
        "Pack the shard again, without dots in its keys."
    )


def _missing_class_error(shard: Path, unlabelled: dict[str, Parts]) -> UserError:
    others = [name for each in unlabelled.values() for name in each.others]
    kept = f" Their {some(others, most=2)} is not read." if others else ""
    return UserError(
        f"{shard}: {len(unlabelled)} images without a .cls: {some(sorted(unlabelled))}.{kept}\n"
        "Validation is never shortened: pack the shard again, with the class of each image as KEY.cls."
    )


def _name(found: Iterable[Member]) -> str:
    return some([repr(member.name) for member in found])


def _read_label(opened: BinaryIO, shard: Path, key: str, member: Member) -> str:
    if member.length > MAX_CLASS_BYTES:
        raise UserError(f"{shard}: the class of {key!r} has {member.length} bytes, too many for a number or a name.")
    opened.seek(member.offset)
    label = os.fsdecode(opened.read(member.length)).strip()
    if not label:
        raise UserError(f"{shard}: the class of {key!r} is empty.")
    return label
