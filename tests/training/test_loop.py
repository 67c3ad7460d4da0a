"""The loop on a CPU with a four-layer network and no data set."""

import json
import math
from contextlib import closing

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbones.errors import UserError
from backbones.layers import DropBlock2d, set_drop_block_progress
from backbones.recipe import Log, Optim, Recipe
from backbones.training.loop import Run, fit, seed_generators, train_step
from backbones.training.optim import create_optimizer
from backbones.training.schedule import poly_with_burn_in
from backbones.training.tracking import Tracker
from tests import accelerate_state
from tests.training.make_runs import (
    BATCH,
    STEPS_PER_EPOCH,
    FakeCheckpoints,
    made_up,
    make_run,
    network,
    one_hot,
    same,
    saved,
    train,
    validated,
    weights,
)

pytestmark = pytest.mark.usefixtures("fresh_accelerate")


def test_the_loop_does_what_plain_torch_does():
    run = make_run()
    fit(run)
    model = network().train()
    optimizer = create_optimizer(model, Optim(), lr=0.1)
    rate = poly_with_burn_in(lr=0.05, total_steps=8, burn_in=2, power=1)
    for step in range(8):
        for group in optimizer.param_groups:
            group["lr"] = rate(step + 1)
        images, labels = made_up(1000 * (step // STEPS_PER_EPOCH) + step % STEPS_PER_EPOCH)
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()
    for ours, plain in zip(weights(run), model.state_dict().values(), strict=True):
        assert torch.allclose(ours, plain, atol=1e-6)


@pytest.mark.parametrize("micro_batches", [2, 3])
def test_accumulated_micro_batches_make_the_step_of_the_whole_batch(micro_batches):
    whole = make_run(network(norm=False))
    fit(whole)
    accelerate_state.reset()
    parts = make_run(network(norm=False), micro_batches=micro_batches)
    fit(parts)
    assert parts.step == whole.step == 8
    for a, b in zip(weights(whole), weights(parts), strict=True):
        assert torch.allclose(a, b, atol=1e-6)


@pytest.mark.parametrize("stop", [1, 3, 4, 5])
def test_a_run_that_stops_at_any_step_and_goes_on_is_the_same_run(stop):
    """Dropout is on: its random numbers must not depend on where the run was stopped."""
    straight = make_run(network(dropout=0.5))
    fit(straight)
    first = make_run(network(dropout=0.5), total_steps=stop)
    fit(first)
    torch.manual_seed(12345)
    second = make_run(first.plain_model, step=stop)
    second.optimizer.load_state_dict(first.optimizer.state_dict())
    fit(second)
    assert same(weights(straight), weights(second))


def test_each_step_is_told_the_share_of_the_run_that_is_done_also_after_a_stop():
    shares = []
    run = make_run(micro_batches=2, total_steps=4, on_step=shares.append)
    fit(run)
    assert shares == [0, 0.25, 0.5, 0.75]
    shares.clear()
    fit(make_run(total_steps=4, step=2, on_step=shares.append))
    assert shares == [0.5, 0.75]


def test_a_resumed_run_goes_on_with_drop_blocks_strength():
    def make(**fields):
        model = nn.Sequential(DropBlock2d(0.5, 3), network())
        return make_run(model, on_step=lambda share: set_drop_block_progress(model, share), **fields)

    straight = make()
    fit(straight)
    first = make()
    first.checkpoints = StopHere()
    with pytest.raises(InterruptedError):
        fit(first)
    assert first.step == STEPS_PER_EPOCH
    second = make(step=first.step)
    second.plain_model.load_state_dict(first.plain_model.state_dict())
    second.optimizer.load_state_dict(first.optimizer.state_dict())
    fit(second)
    assert same(weights(straight), weights(second))


class StopHere(FakeCheckpoints):
    def write_last(self, *_args, **_options) -> None:
        raise InterruptedError


def drawn(**fields) -> list[float]:
    """One random number of each forward pass of an epoch."""
    numbers: list[float] = []

    class Draw(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if self.training:
                numbers.append(torch.rand(()).item())
            return x

    train(make_run(nn.Sequential(Draw(), network()), **fields))
    return numbers


def test_every_micro_batch_of_every_step_and_seed_has_its_own_random_numbers():
    numbers = drawn(micro_batches=3) + drawn(micro_batches=3, recipe=Recipe(seed=1))
    assert len(set(numbers)) == len(numbers) == 2 * 3 * STEPS_PER_EPOCH


def test_the_random_numbers_of_a_step_do_not_depend_on_where_the_run_began():
    assert drawn(step=2) == drawn()[2:]


def test_the_last_epoch_may_be_a_part_of_one():
    run = make_run(total_steps=6)
    fit(run)
    assert run.step == 6
    assert validated(run) == [4, 6]


def test_validation_may_come_less_often_but_always_at_the_end():
    run = make_run(recipe=Recipe(val_interval=2), total_steps=12, schedule=lambda _: 0.01)
    fit(run)
    assert validated(run) == [8, 12]


def test_the_average_is_validated_too_and_decides_what_is_best():
    run = make_run(ema=True)
    evaluation = fit(run)
    _, evaluations, _ = saved(run)[-1]
    assert set(evaluations) == {"val", "val_ema"}
    assert evaluation == evaluations["val_ema"]
    assert run.checkpoints.best_top1 == max(e["val_ema"].top1 for _, e, _ in saved(run) if e)


def test_the_average_follows_its_formula():
    run = make_run(ema=True, total_steps=1)
    train(run)  # timm: the average starts as the weights after the first step
    first = [parameter.detach().clone() for parameter in run.plain_model.parameters()]
    run.total_steps = 2
    train(run)
    assert run.ema is not None
    for old, new, mean in zip(first, run.plain_model.parameters(), run.ema.module.parameters(), strict=True):
        assert torch.allclose(mean, 0.5 * old + 0.5 * new)


def test_only_a_better_top1_is_best():
    run = make_run(schedule=lambda _: 0.0)
    fit(run)
    assert [is_best for _, evaluations, is_best in saved(run) if evaluations] == [True, False]


def test_a_loss_that_is_not_finite_stops_the_run_before_it_is_saved(tmp_path):
    mix = lambda batch: (batch.images * math.inf, one_hot(batch)[1])  # noqa: E731
    run = make_run(mix=mix, checkpoints=FakeCheckpoints(folder=tmp_path))
    with pytest.raises(UserError, match="the loss or the gradient of step 1 is not finite"):
        fit(run)
    assert saved(run) == []


def test_what_was_trained_is_saved_before_it_is_evaluated():
    """An image that cannot be read costs the figures, not the epoch."""

    class Unreadable:
        n = 24

        def __iter__(self):
            raise UserError("broken.jpg cannot be decoded")

    run = make_run(val_batches=Unreadable())
    with pytest.raises(UserError, match=r"broken.jpg"):
        fit(run)
    assert [(step, evaluations) for step, evaluations, _ in saved(run)] == [(4, {})]
    assert run.checkpoints.owed == [True]  # type: ignore[attr-defined]


def test_the_network_that_is_evaluated_may_be_another_and_what_is_saved_is_not():
    """The one evaluated here always says class 1."""
    seen: list[nn.Module] = []

    class One(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return F.one_hot(torch.ones(len(images), dtype=torch.int64), 3).float()

    run = make_run(ema=True, for_evaluation=lambda network: seen.append(network) or One())
    before = run.plain_model
    evaluation = fit(run)
    labels = torch.cat([batch.labels for batch in run.val_batches])
    assert evaluation.top1 == pytest.approx(100 * (labels == 1).double().mean().item())
    assert run.ema is not None
    assert [id(network) for network in seen[:2]] == [id(before), id(run.ema.module)]
    assert run.plain_model is before


def test_a_validation_that_is_owed_is_made_first():
    run = make_run(step=8)
    assert fit(run, owes_validation=True).n == 24
    assert validated(run) == [8]
    assert run.checkpoints.owed == [True, False]  # type: ignore[attr-defined]


def test_a_run_that_is_over_says_so():
    with pytest.raises(UserError, match="already has all its 8 steps"):
        fit(make_run(step=8))


def test_rows_tell_loss_rate_position_and_speed(tmp_path):
    run = make_run(tracker=Tracker(tmp_path, Recipe()))
    fit(run)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [3, 4, 4, 6, 8, 8]
    first = rows[0]
    assert first["train/lr"] == run.schedule(3)
    assert first["images_seen"] == 3 * BATCH
    assert first["epoch"] == 0.75
    assert 0 < first["train/loss"] < 10
    assert first["perf/images_per_second"] > 0
    assert 0 <= first["perf/data_wait"] <= 1
    assert {"val/top1", "val/top5", "val/loss", "val/n"} <= set(rows[-1])


def test_the_logged_loss_is_the_mean_since_the_last_row(tmp_path):
    run = make_run(
        tracker=Tracker(tmp_path, Recipe()), schedule=lambda _: 0.0, recipe=Recipe(log=Log(interval=2)), total_steps=2
    )
    fit(run)
    model = network().train()
    losses = [F.cross_entropy(model(made_up(step)[0]), made_up(step)[1]).item() for step in range(2)]
    row = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[0])
    assert row["train/loss"] == pytest.approx(sum(losses) / 2, rel=1e-5)


def test_gradients_are_clipped_to_their_norm():
    run = make_run(recipe=Recipe(optim=Optim(clip_grad=1e-3)), total_steps=1, schedule=lambda _: 1.0)
    before = [parameter.detach().clone() for parameter in run.plain_model.parameters()]
    for group in run.optimizer.param_groups:
        group["weight_decay"] = 0.0
    train(run)
    moved = torch.cat([(p - old).flatten() for p, old in zip(run.plain_model.parameters(), before, strict=True)])
    assert moved.norm().item() == pytest.approx(1e-3, rel=1e-3)


def test_the_stream_of_batches_is_opened_once_and_closed_at_the_end():
    run = make_run()
    fit(run)
    assert run.train_batches.closed == 1  # type: ignore[attr-defined]


def test_an_error_closes_the_stream_of_batches(tmp_path):
    mix = lambda batch: (batch.images * math.inf, one_hot(batch)[1])  # noqa: E731
    run = make_run(mix=mix, checkpoints=FakeCheckpoints(folder=tmp_path))
    with pytest.raises(UserError):
        fit(run)
    assert run.train_batches.closed == 1  # type: ignore[attr-defined]


def test_a_run_saved_within_an_epoch_goes_on_without_a_validation():
    """The state that the writer got after step 2 is enough: weights, momenta, step, and the report."""
    straight = make_run()
    fit(straight)
    first = make_run(total_steps=2)
    fit(first)
    second = make_run(first.plain_model, step=2)
    second.optimizer.load_state_dict(first.optimizer.state_dict())
    fit(second)
    assert same(weights(straight), weights(second))
    assert validated(second) == [4, 8]


def test_the_run_has_few_fields():
    """A step moves these; everything that is only told belongs to the report."""
    assert len(Run.__dataclass_fields__) <= 19


def test_a_step_after_the_first_walks_over_no_network(monkeypatch):
    """A walk over the layers of a deep network takes longer than all else that surrounds it."""
    run = make_run(ema=True, recipe=Recipe(log=Log(interval=50), optim=Optim(clip_grad=1.0)))
    with closing(run.train_batches.from_step(0)) as batches:
        run.model.train()
        train_step(run, batches)
        before = weights(run)
        with monkeypatch.context() as patched:
            for walk in ("named_modules", "named_parameters", "state_dict"):
                patched.setattr(nn.Module, walk, forbidden)
            train_step(run, batches)
    assert not same(before, weights(run))


def forbidden(*_args, **_options):
    raise AssertionError("a walk over the network")


@pytest.mark.parametrize("device", ["cpu", "meta", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_the_random_numbers_of_a_seed_are_those_of_torchs_own_function(device: str):
    drawn = []
    for seed in (lambda number: seed_generators(number, torch.device(device)), torch.manual_seed):
        seed(2**64 - 3)
        drawn.append([torch.rand(5), *([torch.rand(5, device=device)] if device == "cuda" else [])])
    assert same(*drawn)
