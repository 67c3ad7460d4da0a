"""Images with the same bytes, by the kind of problem that they cause."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from backbones.dataset.index import Index
from backbones.dataset.verification.survey import Survey


class Seen(NamedTuple):
    """An image of one of the splits."""

    split: str
    row: int


def find_duplicates(surveys: Mapping[str, Survey]) -> list[list[Seen]]:
    """Return the usable images that have the same bytes, as a list for each content."""
    splits, usable = list(surveys), [found.usable for found in surveys.values()]
    digests = np.concatenate([found.digests[rows] for found, rows in zip(surveys.values(), usable, strict=True)])
    _, content, counts = np.unique(digests, return_inverse=True, return_counts=True)
    numbers, rows = np.repeat(np.arange(len(splits)), list(map(len, usable))), np.concatenate(usable)
    groups: defaultdict[int, list[Seen]] = defaultdict(list)
    for i in np.flatnonzero(counts[content] > 1).tolist():
        groups[int(content[i])].append(Seen(splits[numbers[i]], int(rows[i])))
    return sorted(groups.values())


def sort_duplicates(groups: Sequence[list[Seen]], splits: Mapping[str, Index]) -> dict[str, list[list[Seen]]]:
    """Return the groups of equal images by kind of problem; one group can cause several."""
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
