"""Comparison of the numbers of images with ImageNet's."""

import re
from collections.abc import Iterator, Mapping

import numpy as np

from backbones.dataset.index import Index, some

IMAGENET_IMAGES = {"train": 1_281_167, "val": 50_000}
"""Images of ILSVRC 2012 (image-net.org)."""
IMAGENET_CLASSES = 1000
IMAGES_PER_CLASS = {"train": (732, 1300), "val": (50, 50)}
"""Smallest and largest class of ILSVRC 2012."""
WORDNET_ID = re.compile(r"n\d{8}")


def find_miscounts(splits: Mapping[str, Index]) -> list[str]:
    """Return a sentence for each count that is not ImageNet's; none where the classes are not ImageNet's."""
    classes = next(iter(splits.values())).classes
    if len(classes) != IMAGENET_CLASSES or not all(map(WORDNET_ID.fullmatch, classes)):
        return []
    return [sentence for split, index in splits.items() for sentence in _compare(split, index)]


def _compare(split: str, index: Index) -> Iterator[str]:
    expected = IMAGENET_IMAGES[split]
    if len(index) != expected:
        only = "only " if len(index) < expected else ""
        yield f"{split} has {only}{len(index)} of ImageNet's {expected} images"
    least, most = IMAGES_PER_CLASS[split]
    counts = np.bincount(index.labels, minlength=len(index.classes))
    for odd, relation, bound in ((counts < least, "fewer", least), (counts > most, "more", most)):
        if odd.any():
            names = [f"{index.classes[label]} ({counts[label]})" for label in np.flatnonzero(odd)]
            yield f"{split} has {len(names)} of {len(odd)} classes with {relation} than {bound} images: {some(names)}"
