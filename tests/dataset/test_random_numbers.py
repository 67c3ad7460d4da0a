"""Tests of the random numbers: any part of a stream is the same, streams are independent, and nothing ever changes."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from backbones.dataset.random_numbers import permutation, uniforms

SEED = 42


@given(start=st.integers(0, 60), length=st.integers(0, 40), columns=st.integers(1, 9))
def test_the_numbers_of_some_positions_are_a_slice_of_all(start: int, length: int, columns: int) -> None:
    everything = uniforms(SEED, 1, 0, 100, columns, stream="augment")
    some = uniforms(SEED, 1, start, start + length, columns, stream="augment")
    np.testing.assert_array_equal(some, everything[start : start + length])


def test_numbers_are_uniform_and_uncorrelated_between_streams_epochs_and_seeds() -> None:
    keys = [(s, e, stream) for s in (0, 1) for e in (0, 1) for stream in ("order", "augment", "mix", "coin")]
    series = np.stack([uniforms(s, e, 0, 20_000, 1, stream=stream)[:, 0] for s, e, stream in keys])
    assert series.min() >= 0
    assert series.max() < 1
    np.testing.assert_allclose(series.mean(axis=1), 0.5, atol=0.01)
    np.testing.assert_allclose(series.var(axis=1), 1 / 12, atol=0.003)
    assert np.abs(np.corrcoef(series) - np.eye(len(keys))).max() < 0.04


def test_the_stream_is_philox_4x64_of_the_documented_key_and_counter() -> None:
    """Draws must never change between versions: old runs could not be resumed. Independent integer arithmetic."""
    key, counter = [SEED, 1], [7 + 1, 0, 2, 0]
    for _ in range(10):
        first, second = 0xD2E7470EE14C6C93 * counter[0], 0xCA5A826395121157 * counter[2]
        counter = [
            (second >> 64) ^ counter[1] ^ key[0],
            second % 2**64,
            (first >> 64) ^ counter[3] ^ key[1],
            first % 2**64,
        ]
        key = [(key[0] + 0x9E3779B97F4A7C15) % 2**64, (key[1] + 0xBB67AE8584CAA73B) % 2**64]
    expected = [(word >> 11) / 2**53 for word in counter]
    assert uniforms(SEED, 2, 7, 8, 4, stream="augment").tolist() == [expected]


def test_a_permutation_is_one_and_depends_on_seed_and_epoch() -> None:
    orders = [permutation(seed, epoch, 1000) for seed, epoch in ((0, 0), (0, 1), (1, 0))]
    for order in orders:
        assert sorted(order.tolist()) == list(range(1000))
    matches = [(orders[a] == orders[b]).mean() for a, b in ((0, 1), (0, 2), (1, 2))]
    assert max(matches) < 0.02
