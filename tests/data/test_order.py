"""Tests of the order: every image once, the same global batches and numbers for any number of processes."""

from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backbones.data.order import Shares, training_plans, validation_plans
from backbones.dataset.random_numbers import permutation
from backbones.errors import UserError

SIZE, SEED = 103, 5


def test_a_micro_batch_is_a_share_of_an_accumulation_step() -> None:
    """Step 2 of 24 images in 3 accumulation steps on 2 processes: 4 images each, the processes side by side."""
    starts = [list(Shares(24, 3, rank, 2).starts(2)) for rank in range(2)]
    assert starts == [[48, 56, 64], [52, 60, 68]]


@pytest.mark.parametrize("ranks", [1, 2, 4, 8])
def test_an_epoch_holds_every_row_at_most_once_and_drops_only_the_tail(ranks: int) -> None:
    steps = SIZE // 16
    rows = []
    for rank in range(ranks):
        plans = training_plans(SIZE, Shares(16, 1, rank, ranks), seed=SEED)
        rows += [plan.rows for plan in islice(plans, steps)]
    together = np.concatenate(rows)
    assert len(together) == len(set(together.tolist())) == 96
    assert set(together.tolist()) == set(permutation(SEED, 0, SIZE)[:96].tolist())


def test_plans_run_on_into_the_next_epoch_in_a_new_order() -> None:
    shares = Shares(20, 2)
    plans = list(islice(training_plans(SIZE, shares, seed=SEED, step=3 * 5 + 4), 4))
    assert [(plan.epoch, plan.position) for plan in plans] == [(3, 80), (3, 90), (4, 0), (4, 10)]
    np.testing.assert_array_equal(plans[2].rows, permutation(SEED, 4, SIZE)[:10])


@given(size=st.integers(0, 70), batch_size=st.integers(1, 20), ranks=st.integers(1, 9))
def test_validation_takes_every_row_once(size: int, batch_size: int, ranks: int) -> None:
    plans = [p for r in range(ranks) for p in validation_plans(size, batch_size, rank=r, world_size=ranks)]
    assert sorted(row for plan in plans for row in plan.rows.tolist()) == list(range(size))
    assert all(1 <= len(plan.rows) <= batch_size for plan in plans)


def test_a_process_may_have_nothing_to_validate() -> None:
    assert list(validation_plans(3, 2, rank=3, world_size=4)) == []


def test_a_batch_that_cannot_be_shared_is_refused_with_its_numbers() -> None:
    with pytest.raises(UserError, match=r"batch_size=100 must be a multiple of 12 = 4 processes x grad_accum_steps=3"):
        Shares(100, 3, 0, 4)


def test_a_batch_larger_than_the_data_set_is_refused() -> None:
    with pytest.raises(UserError, match=r"batch_size=128 is larger than the data set of 103 images"):
        next(training_plans(SIZE, Shares(128), seed=0))


def test_a_rank_outside_the_world_is_refused() -> None:
    with pytest.raises(UserError, match="rank=2"):
        Shares(8, 1, 2, 2)


@st.composite
def runs(draw: st.DrawFn) -> tuple[int, int, int, int, int, int]:
    """Size, global batch, ranks, accumulation, seed and epoch of some run whose batch divides evenly."""
    ranks, accumulation = draw(st.sampled_from([1, 2, 4, 8])), draw(st.integers(1, 4))
    batch = ranks * accumulation * draw(st.integers(1, 5))
    size = draw(st.integers(batch, 8 * batch))
    return size, batch, ranks, accumulation, draw(st.integers(0, 2**63 - 1)), draw(st.integers(0, 2**31))


def epoch_of(size: int, batch: int, ranks: int, accumulation: int, seed: int, epoch: int, *, start: int = 0):
    """Return {position: (row, draws)} of what all ranks see of an epoch from step ``start`` on."""
    seen: dict[int, tuple[int, bytes]] = {}
    step = epoch * (size // batch) + start
    for rank in range(ranks):
        plans = training_plans(size, Shares(batch, accumulation, rank, ranks), seed=seed, step=step)
        for plan in islice(plans, (size // batch - start) * accumulation):
            assert plan.epoch == epoch
            for offset, (row, draws) in enumerate(zip(plan.rows.tolist(), plan.draws, strict=True)):
                assert plan.position + offset not in seen
                seen[plan.position + offset] = row, draws.tobytes()
    return seen


@given(runs())
def test_any_number_of_ranks_sees_the_same_epoch_and_each_image_once(run) -> None:
    size, batch, _, _, seed, epoch = run
    seen = epoch_of(*run)
    assert sorted(seen) == list(range(size // batch * batch))
    assert len({row for row, _ in seen.values()}) == len(seen)
    assert seen == epoch_of(size, batch, 1, 1, seed, epoch)


@given(runs(), runs(), st.data())
def test_a_run_resumed_at_any_step_on_any_number_of_ranks_is_the_same_run(run, other, data) -> None:
    size, batch, _, _, seed, epoch = run
    start = data.draw(st.integers(0, size // batch))
    ranks, accumulation = (n if batch % n == 0 else 1 for n in other[2:4])
    if batch % (ranks * accumulation):
        accumulation = 1
    resumed = epoch_of(size, batch, ranks, accumulation, seed, epoch, start=start)
    whole = epoch_of(*run)
    assert resumed == {position: seen for position, seen in whole.items() if position >= start * batch}
