"""The rule for training images that cannot be used: stop the run and name them, or replace them by others."""

import sys
from collections.abc import Iterator

import numpy as np

from backbones.dataset.index import Index
from backbones.errors import UserError
from backbones.recipe import Loading

MAX_NAMES_SHOWN = 10
"""Replaced images that are named; the others are only counted."""


class BadImages:
    """The bad images found so far, and the rule for them.

    The image that replaces a bad one depends on the data set alone, so every rank and every resumed run chooses the
    same. Validation (``loading`` None) always stops: accuracy on other images would be wrong.
    """

    def __init__(self, index: Index, loading: Loading | None, *, world_size: int = 1) -> None:
        self.index = index
        self.loading = loading
        self.rows: set[int] = set()
        """Rows of the bad images."""
        self.replaced = 0
        """Number of replacements so far; an image counts each time it is replaced."""
        self.read = 0
        """Number of images counted so far."""
        self._images_per_epoch = len(index) / world_size

    def report(self, row: int, reason: str) -> None:
        """Record that the image in ``row`` is bad. Raises UserError with its path where that must stop the run."""
        name = self.index.describe(row)
        if self.loading is None:
            raise UserError(
                f"{name} cannot be decoded: {reason}.\n"
                "Validation skips no image. Replace the file; with an index, run `prepare` again."
            )
        if self.loading.bad_images == "stop":
            raise UserError(
                f"{name} cannot be decoded: {reason}.\n"
                "To go on with this run: --resume RUN --bad-images skip. Before a new run: replace the file, or let "
                "`python -m backbones verify DATA_DIR` list all such files, which training then leaves out."
            )
        if row not in self.rows:
            self.rows.add(row)
            self._tell(name, reason)

    def candidates(self, row: int) -> Iterator[int]:
        """Yield ``row``, then the other images of its class in the order of the index, without known bad ones.

        Raises UserError after the last one.
        """
        if row not in self.rows:
            yield row
        label = self.index.labels[row]
        first, end = np.searchsorted(self.index.labels, [label, label + 1]).tolist()
        for candidate in (*range(row + 1, end), *range(first, row)):
            if candidate not in self.rows:
                yield candidate
        raise UserError(f"No image of class {self.index.classes[label]} can be decoded.")

    def count(self, images: int, replaced: int) -> None:
        """Count a batch. Raises UserError where too many images have been replaced so far.

        The limit is a share of the images that this process has read, or of its part of an epoch if that is more.
        """
        self.read += images
        self.replaced += replaced
        limit = self.loading.bad_images_limit if self.loading else 0.0
        whole = max(self.read, self._images_per_epoch)
        if self.replaced > limit * whole:
            raise UserError(
                f"{self.replaced} of {whole:.0f} training images had to be replaced, more than "
                f"--bad-images-limit {limit:g} allows; the last ones are named above.\n"
                "To go on with this run all the same, raise the limit. Before a new run, let "
                "`python -m backbones verify DATA_DIR` list them all: training then leaves them out."
            )

    def _tell(self, name: str, reason: str) -> None:
        if len(self.rows) <= MAX_NAMES_SHOWN:
            more = " (further ones are only counted)" if len(self.rows) == MAX_NAMES_SHOWN else ""
            print(f"bad image   {name}: {reason}; another of its class is used{more}", file=sys.stderr)  # noqa: T201
