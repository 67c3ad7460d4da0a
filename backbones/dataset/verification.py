"""Every image looked at once, in worker processes: whether it can be used, what it is, and which ones are the same.

A byte that changed inside the image so that it still decodes is not found: nothing here knows what the pixels were.
"""

import io
import re
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from enum import IntFlag
from hashlib import blake2b
from typing import NamedTuple, Self

import numpy as np
from PIL import Image

from backbones.dataset.encoded import ENDS, FORMATS, PNG, ImageHeader, decode, is_whole, read_header
from backbones.dataset.index import Index, some
from backbones.dataset.place import BadImageError, Place, read_bytes
from backbones.dataset.workers import JOBS_PER_WORKER, as_they_finish
from backbones.errors import UserError

CHUNK = 32
"""Images that a worker looks at before it reports."""

IMAGENET = {"train": 1_281_167, "val": 50_000}
"""Images of ILSVRC 2012 (image-net.org)."""
IMAGENET_CLASSES = 1000
IMAGENET_CLASS = {"train": (732, 1300), "val": (50, 50)}
"""Fewest and most images of a class."""
WORDNET_ID = re.compile(r"n\d{8}")

MODES = {"L": "grey", "LA": "grey with alpha", "I;16": "grey", "I;16B": "grey", "I": "grey", "1": "black and white"}
MODES |= {"P": "palette", "PA": "palette with alpha", "RGBA": "RGB with alpha"}
"""What PIL's modes are in words; others stand for themselves."""

ENDINGS = {"jpg": "JPEG", "jpeg": "JPEG", "tif": "TIFF", "ppm": "PPM", "png": "PNG", "bmp": "BMP", "webp": "WEBP"}
ENDINGS |= {"tiff": "TIFF"}
"""The format that the ending of a file name promises."""

ORIENTATION = 0x0112
"""EXIF tag; 1 is upright."""


class Remark(IntFlag):
    """What is worth counting in an image that can be used."""

    PROGRESSIVE = 1
    """A progressive JPEG: slower to decode, and not by every hardware decoder."""
    TURNED = 2
    """EXIF asks for a turn or a reflection, which training and validation ignore."""
    MISNAMED = 4
    """Of another format than its name says; the content decides."""
    TRAILING = 8
    """Bytes follow the end of the image."""
    ENDLESS = 16
    """The end mark is missing, but no pixel is."""


class Look(NamedTuple):
    """What one image is, or why it cannot be used."""

    kind: str = ""
    """Format and colours, as "JPEG CMYK"; empty for a bad image."""
    height: int = 0
    width: int = 0
    remarks: Remark = Remark(0)
    digest: int = 0
    """64 bits of blake2b of the bytes: among a million different images two agree with a chance of 3e-8."""
    reason: str = ""
    """Why it is bad."""


@dataclass(eq=False)
class Survey:
    """What was seen of a split: a few numbers for each image.

    Shape: kinds (N,) uint16, digests (N,) uint64, remarks (N,) uint8, sizes (N, 2) int32; all 0 for a bad image.
    """

    index: Index
    kinds: np.ndarray
    """Position in ``kind_names`` plus 1."""
    digests: np.ndarray
    remarks: np.ndarray
    sizes: np.ndarray
    """Height and width in pixels."""
    kind_names: list[str] = field(default_factory=list)
    reasons: dict[int, str] = field(default_factory=dict)
    """Why the image in a row is bad."""

    @classmethod
    def of(cls, index: Index) -> Self:
        """Return a survey that has seen nothing yet."""
        count = len(index)
        kinds, digests, remarks = (np.zeros(count, dtype) for dtype in (np.uint16, np.uint64, np.uint8))
        return cls(index, kinds, digests, remarks, np.zeros((count, 2), np.int32))

    def record(self, first: int, looks: Sequence[Look]) -> None:
        """Note what was seen of the images from row ``first`` on."""
        for row, look in enumerate(looks, first):
            if look.reason:
                self.reasons[row] = look.reason
                continue
            if look.kind not in self.kind_names:
                self.kind_names.append(look.kind)
            self.kinds[row] = self.kind_names.index(look.kind) + 1
            self.digests[row], self.remarks[row] = look.digest, look.remarks
            self.sizes[row] = look.height, look.width

    @property
    def bad(self) -> dict[str, str]:
        """Name and reason of each image that cannot be used, in the order of the index."""
        return {self.index.names[row]: self.reasons[row] for row in sorted(self.reasons)}

    @property
    def usable(self) -> np.ndarray:
        """Rows of the images that can be used."""
        return np.flatnonzero(self.kinds)

    def count_kinds(self) -> dict[str, int]:
        """Return how many images there are of each kind, the most frequent first."""
        counts = np.bincount(self.kinds, minlength=len(self.kind_names) + 1)[1:].tolist()
        return dict(sorted(zip(self.kind_names, counts, strict=True), key=lambda pair: (-pair[1], pair[0])))

    def rows_with(self, remark: Remark) -> np.ndarray:
        """Return the rows of the images that deserve ``remark``."""
        return np.flatnonzero(self.remarks & remark)


def survey(
    splits: Mapping[str, Index],
    *,
    executor: Executor | None = None,
    workers: int = 1,
    seen: Callable[[int], None] = lambda _: None,
) -> dict[str, Survey]:
    """Look at every image of ``splits``; ``seen`` is told how many more images are done, chunk by chunk.

    An ``executor`` of ``workers`` processes shares the work; without one, everything happens in this process.
    Raises UserError where a worker dies.
    """
    surveys = {name: Survey.of(index) for name, index in splits.items()}
    under_way: dict[tuple[str, int], _Chunk] = {}
    try:
        for report in as_they_finish(_look_at_all, _chunks(splits, under_way), executor, JOBS_PER_WORKER * workers):
            surveys[report.split].record(report.first, report.looks)
            del under_way[report.split, report.first]
            seen(len(report.looks))
    except (BrokenProcessPool, MemoryError):
        raise _casualty(under_way.values()) from None
    return surveys


def look_at(place: Place, name: str) -> Look:
    """Read, check and decode one image in full; ``name`` is what its ending is taken from."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of damaged EXIF and the like: the user is told what matters
        try:
            return _describe(read_bytes(place), name)
        except BadImageError as error:
            return Look(reason=str(error))
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001  # whatever a decoder stumbles over, the file is to blame
            return Look(reason=f"{type(error).__name__}: {error}")


class Seen(NamedTuple):
    """An image of one of the splits."""

    split: str
    row: int


def duplicates(surveys: Mapping[str, Survey]) -> list[list[Seen]]:
    """Return the images that have the same bytes, a list for each content; bad images are left out."""
    splits, usable = list(surveys), [found.usable for found in surveys.values()]
    digests = np.concatenate([found.digests[rows] for found, rows in zip(surveys.values(), usable, strict=True)])
    _, content, counts = np.unique(digests, return_inverse=True, return_counts=True)
    numbers, rows = np.repeat(np.arange(len(splits)), list(map(len, usable))), np.concatenate(usable)
    groups: defaultdict[int, list[Seen]] = defaultdict(list)
    for i in np.flatnonzero(counts[content] > 1).tolist():
        groups[int(content[i])].append(Seen(splits[numbers[i]], int(rows[i])))
    return sorted(groups.values())


def sort_duplicates(groups: Sequence[list[Seen]], splits: Mapping[str, Index]) -> dict[str, list[list[Seen]]]:
    """Return the groups by what they spoil; one group can spoil several things."""
    sorted_groups: dict[str, list[list[Seen]]] = {"within a class": [], "across classes": [], "in train and val": []}
    for group in groups:
        homes = [(image.split, int(splits[image.split].labels[image.row])) for image in group]
        if len(set(homes)) < len(homes):
            sorted_groups["within a class"].append(group)
        if len({label for _, label in homes}) > 1:
            sorted_groups["across classes"].append(group)
        if len({split for split, _ in homes}) > 1:
            sorted_groups["in train and val"].append(group)
    return sorted_groups


def miscounts(splits: Mapping[str, Index]) -> list[str]:
    """Return a sentence for each count that is not ImageNet's; none where the classes are not ImageNet's."""
    classes = next(iter(splits.values())).classes
    if len(classes) != IMAGENET_CLASSES or not all(map(WORDNET_ID.fullmatch, classes)):
        return []
    found = []
    for split, index in splits.items():
        if len(index) != IMAGENET[split]:
            only = "only " if len(index) < IMAGENET[split] else ""
            found.append(f"{split} has {only}{len(index)} of ImageNet's {IMAGENET[split]} images")
        found.extend(_odd_classes(split, index))
    return found


def _odd_classes(split: str, index: Index) -> Iterator[str]:
    """Yield what is to be said of classes that are smaller or larger than any of ImageNet's."""
    least, most = IMAGENET_CLASS[split]
    counts = np.bincount(index.labels, minlength=len(index.classes))
    for odd, relation, bound in ((counts < least, "fewer", least), (counts > most, "more", most)):
        if odd.any():
            names = [f"{index.classes[label]} ({counts[label]})" for label in np.flatnonzero(odd)]
            yield f"{split} has {len(names)} of {len(odd)} classes with {relation} than {bound} images: {some(names)}"


def _describe(data: bytes, name: str) -> Look:
    """Return what a sound image is; BadImageError for any other."""
    header = read_header(data)
    height, width = decode(data).size[::-1]
    if (height, width) != (header.height, header.width):
        raise BadImageError(f"its header says {header.width} x {header.height}, but it has {width} x {height} pixels")
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        kind = f"{header.kind} {MODES.get(image.mode, image.mode)}{_depth(data, image.mode)}"
        remarks = _remarks(data, header, name, image)
    digest = int.from_bytes(blake2b(data, digest_size=8).digest(), "little")
    return Look(kind, height, width, remarks, digest)


def _depth(data: bytes, mode: str) -> str:
    """Return " 16-bit" for an image with more than 8 bits; of a PNG with three channels only the header tells."""
    is_deep = mode.startswith("I") or (data.startswith(PNG) and data[24] == 16)
    return " 16-bit" if is_deep else ""


def _remarks(data: bytes, header: ImageHeader, name: str, image: Image.Image) -> Remark:
    remarks = Remark(0)
    if image.info.get("progressive"):
        remarks |= Remark.PROGRESSIVE
    if _is_turned(image):
        remarks |= Remark.TURNED
    if ENDINGS.get(name.rpartition(".")[2].lower(), header.kind) != header.kind:
        remarks |= Remark.MISNAMED
    if header.kind in ENDS and not is_whole(data, header.kind):
        remarks |= Remark.TRAILING if ENDS[header.kind] in data else Remark.ENDLESS
    return remarks


def _is_turned(image: Image.Image) -> bool:
    try:
        return image.getexif().get(ORIENTATION, 1) in range(2, 9)
    except Exception:  # noqa: BLE001  # damaged EXIF fails in many ways, and the pixels need none of it
        return False


class _Chunk(NamedTuple):
    """Consecutive rows of one split."""

    split: str
    first: int
    images: list[tuple[Place, str]]
    """Place and name of each."""

    def __str__(self) -> str:
        return f"{self.split}/{self.images[0][1]} to {self.split}/{self.images[-1][1]}"


class _Report(NamedTuple):
    """What a chunk turned out to be."""

    split: str
    first: int
    looks: list[Look]


def _chunks(splits: Mapping[str, Index], under_way: dict[tuple[str, int], _Chunk]) -> Iterator[_Chunk]:
    """Yield every image once, and note each chunk in ``under_way``."""
    for split, index in splits.items():
        for first in range(0, len(index), CHUNK):
            rows = range(first, min(first + CHUNK, len(index)))
            chunk = _Chunk(split, first, [(index.place(row), index.names[row]) for row in rows])
            under_way[split, first] = chunk
            yield chunk


def _look_at_all(chunk: _Chunk) -> _Report:
    return _Report(chunk.split, chunk.first, [look_at(place, name) for place, name in chunk.images])


def _casualty(chunks: Iterable[_Chunk]) -> UserError:
    return UserError(
        "A worker process died or ran out of memory while these images were looked at:\n"
        + "".join(f"  {chunk}\n" for chunk in chunks)
        + "Try again with fewer --workers: they need less memory."
    )
