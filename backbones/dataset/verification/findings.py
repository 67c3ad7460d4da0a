"""Findings of a verification: everything that is printed or written as JSON."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from backbones.dataset.verification.counts import find_miscounts
from backbones.dataset.verification.duplicates import find_duplicates, sort_duplicates
from backbones.dataset.verification.look import Remark
from backbones.dataset.verification.survey import Survey

MAX_NAMES = 5
"""Names kept for each remark."""

REMARKS = {
    Remark.PROGRESSIVE: "progressive",
    Remark.TURNED: "EXIF orientation (ignored)",
    Remark.MISNAMED: "named as another format",
    Remark.TRAILING: "trailing bytes",
    Remark.ENDLESS: "no end mark",
    Remark.UNUSUAL: "decoded by PIL, not by DALI",
}

JSON_KEYS = {"file_size": "bytes", "shorter_side": "shorter side", "longer_side": "longer side"}
"""Field of `SplitFindings` -> key in JSON, where they differ."""


@dataclass(frozen=True)
class BadImage:
    """An image that cannot be used."""

    file: str
    """File, or name in its archive."""
    reason: str


@dataclass(frozen=True)
class Remarked:
    """Images with the same remark."""

    images: int
    first: list[str]
    """Names of the first few."""


@dataclass(frozen=True)
class SplitFindings:
    """Findings about one split. A spread is [minimum, median, maximum], empty without usable images."""

    images: int
    classes: int
    bad: dict[str, BadImage]
    """Bad images by name, in the order of the index."""
    kinds: dict[str, int]
    """Kind, as "JPEG RGB" -> number of images."""
    remarks: dict[str, Remarked]
    file_size: list[int]
    """Spread in bytes."""
    shorter_side: list[int]
    """Spread in pixels."""
    longer_side: list[int]
    """Spread in pixels."""


@dataclass(frozen=True)
class Findings:
    """Findings about a data set."""

    good: bool
    """No image is bad and no count is wrong."""
    splits: dict[str, SplitFindings]
    duplicates: dict[str, list[list[str]]]
    """Kind of problem -> groups of equal images."""
    counts: list[str]
    """Wrong counts, as sentences."""
    notes: list[str]
    """Notes of the sources about the data set."""
    seconds: float
    workers: int
    images_per_second: float

    def to_dict(self) -> dict[str, Any]:
        """Return the findings as they are written as JSON."""
        content = asdict(self)
        for name, split in content["splits"].items():
            content["splits"][name] = {JSON_KEYS.get(key, key): value for key, value in split.items()}
        return content


def collect(surveys: Mapping[str, Survey], *, seconds: float, workers: int = 1) -> Findings:
    """Return the findings of the surveys, which took ``seconds`` with ``workers`` processes."""
    splits = {name: found.index for name, found in surveys.items()}
    count = sum(map(len, splits.values()))
    wrong_counts = find_miscounts(splits)
    groups = sort_duplicates(find_duplicates(surveys), splits)
    return Findings(
        good=not wrong_counts and not any(found.reasons for found in surveys.values()),
        splits={name: _describe(found) for name, found in surveys.items()},
        duplicates={
            where: [[f"{image.split}/{splits[image.split].names[image.row]}" for image in group] for group in found]
            for where, found in groups.items()
        },
        counts=wrong_counts,
        notes=[note for index in splits.values() for note in index.notes],
        seconds=round(seconds, 3),
        workers=workers,
        images_per_second=round(count / max(seconds, 1e-9), 1),
    )


def _describe(found: Survey) -> SplitFindings:
    index, names, sizes = found.index, found.index.names, found.sizes[found.usable]
    rows = {text: found.rows_with(remark).tolist() for remark, text in REMARKS.items()}
    return SplitFindings(
        images=len(index),
        classes=len(index.classes),
        bad={names[row]: BadImage(index.describe(row), found.reasons[row]) for row in sorted(found.reasons)},
        kinds=found.count_kinds(),
        remarks={
            text: Remarked(len(matching), [names[row] for row in matching[:MAX_NAMES]])
            for text, matching in rows.items()
            if matching
        },
        file_size=_spread(index.lengths),
        shorter_side=_spread(sizes.min(axis=1)),
        longer_side=_spread(sizes.max(axis=1)),
    )


def _spread(numbers: np.ndarray) -> list[int]:
    """Return minimum, median and maximum."""
    return [int(numbers.min()), int(np.median(numbers)), int(numbers.max())] if len(numbers) else []
