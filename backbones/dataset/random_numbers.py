"""Counter-based random numbers (Philox 4x64): pure functions of (stream, seed, epoch, position)."""

from typing import Literal, get_args

import numpy as np

Stream = Literal["order", "augment", "mix", "coin", "blur"]
"""Independent streams: for the permutation, the augmentation, the mixing, its coin per group, the blur."""

WORDS_PER_BLOCK = 4
"""64-bit words that Philox 4x64 makes per counter value."""


def permutation(seed: int, epoch: int, size: int) -> np.ndarray:
    """Return the order of the images in an epoch.

    Random words are sorted, since ``Generator.permutation`` may differ between versions of numpy; the words do not.

    Shape: (size,) int64.
    """
    return np.argsort(_words("order", seed, epoch, 0, size), kind="stable")


def uniforms(seed: int, epoch: int, start: int, stop: int, columns: int, *, stream: Stream) -> np.ndarray:
    """Return ``columns`` uniform numbers in [0, 1) for each position of [start, stop).

    Shape: (stop - start, columns) float64.
    """
    blocks = -(-columns // WORDS_PER_BLOCK)
    words = _words(stream, seed, epoch, start * blocks, (stop - start) * blocks * WORDS_PER_BLOCK)
    return ((words >> np.uint64(11)) * 2.0**-53).reshape(-1, blocks * WORDS_PER_BLOCK)[:, :columns]


def _words(stream: Stream, seed: int, epoch: int, block: int, count: int) -> np.ndarray:
    """Return ``count`` 64-bit words from ``block`` on. Seed and stream are the key, the epoch is a counter word."""
    key = np.array([seed % 2**64, get_args(Stream).index(stream)], dtype=np.uint64)
    counter = np.array([block, 0, epoch, 0], dtype=np.uint64)
    return np.random.Philox(key=key, counter=counter).random_raw(count)
