"""The loop on a CPU with a four-layer network and no data set."""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from timm.utils.model_ema import ModelEmaV3
from torch import Tensor, nn

from backbones.errors import UserError
from backbones.layers import DropBlock2d, set_drop_block_progress
from backbones.recipe import Optim, Recipe
from backbones.training.loop import Run, fit, train_epoch
from backbones.training.optim import create_optimizer
from backbones.training.progress import ProgressBar
from backbones.training.schedule import poly_with_burn_in
from backbones.training.tracking import Tracker
from tests import accelerate_state

pytestmark = pytest.mark.usefixtures("fresh_accelerate")
STEPS_PER_EPOCH, BATCH, CLASSES = 4, 6, 3


class FakeBatch(NamedTuple):
    images: Tensor
    labels: Tensor


@dataclass
class FakeBatches:
    """The images of a step depend on epoch and step alone; micro-batches are equal parts of them."""

    micro_batches: int = 1
    steps_per_epoch: int = STEPS_PER_EPOCH
    replaced: int = 0

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[FakeBatch]:
        for step in range(start_step, self.steps_per_epoch):
            images, labels = made_up(1000 * epoch + step)
            for part in torch.arange(BATCH).chunk(self.micro_batches):
                yield FakeBatch(images[part], labels[part])


def made_up(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, CLASSES, (BATCH,), generator=generator)
    return torch.randn(BATCH, 3, 6, 6, generator=generator) + labels[:, None, None, None], labels


def one_hot(batch: FakeBatch) -> tuple[Tensor, Tensor]:
    return batch.images, F.one_hot(batch.labels, CLASSES).float()


def network(*, norm: bool = True, dropout: float = 0.0) -> nn.Module:
    torch.manual_seed(0)
    middle = nn.BatchNorm2d(4) if norm else nn.Identity()
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), middle, nn.ReLU(), nn.Dropout(dropout), nn.Flatten(), nn.Linear(64, CLASSES)
    )


def make_run(model: nn.Module | None = None, *, micro_batches: int = 1, ema: bool = False, **fields) -> Run:
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=micro_batches)
    model = model or network()
    average = ModelEmaV3(model, decay=0.5) if ema else None
    prepared, optimizer = accelerator.prepare(model, create_optimizer(model, Optim(), lr=0.1))
    saved: list[tuple[int, dict, bool]] = []
    defaults = {
        "schedule": poly_with_burn_in(lr=0.05, total_steps=8, burn_in=2, power=1),
        "total_steps": 8,
        "batch_size": BATCH,
        "train_batches": FakeBatches(micro_batches),
        "val_batches": list(FakeBatches().epoch(99)),
        "val_size": STEPS_PER_EPOCH * BATCH,
        "mix": one_hot,
        "save": lambda run, evaluations, is_best: saved.append((run.step, evaluations, is_best)),
        "progress": ProgressBar(8, enabled=False),
        "log_interval": 3,
    }
    run = Run(accelerator=accelerator, model=prepared, optimizer=optimizer, ema=average, **(defaults | fields))
    run.saved = saved  # type: ignore[attr-defined]
    return run


def validated(run: Run) -> list[int]:
    """Steps at which figures were saved."""
    return [step for step, evaluations, _ in run.saved if evaluations]  # type: ignore[attr-defined]


def weights(run: Run) -> list[Tensor]:
    return [tensor.clone() for tensor in run.plain_model.state_dict().values()]


def same(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


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
    assert shares == [0, 0, 0.25, 0.25, 0.5, 0.5, 0.75, 0.75]
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
    first.val_interval, first.save = 1, stop_here
    with pytest.raises(InterruptedError):
        fit(first)
    assert first.step == STEPS_PER_EPOCH
    second = make(step=first.step)
    second.plain_model.load_state_dict(first.plain_model.state_dict())
    second.optimizer.load_state_dict(first.optimizer.state_dict())
    fit(second)
    assert same(weights(straight), weights(second))


def stop_here(_run, _evaluations, _is_best):
    raise InterruptedError


def drawn(**fields) -> list[float]:
    """One random number of each forward pass of an epoch."""
    numbers: list[float] = []

    class Draw(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if self.training:
                numbers.append(torch.rand(()).item())
            return x

    train_epoch(make_run(nn.Sequential(Draw(), network()), **fields))
    return numbers


def test_every_micro_batch_of_every_step_and_seed_has_its_own_random_numbers():
    numbers = drawn(micro_batches=3) + drawn(micro_batches=3, seed=1)
    assert len(set(numbers)) == len(numbers) == 2 * 3 * STEPS_PER_EPOCH


def test_the_random_numbers_of_a_step_do_not_depend_on_where_the_run_began():
    assert drawn(step=2) == drawn()[2:]


def test_the_last_epoch_may_be_a_part_of_one():
    run = make_run(total_steps=6)
    fit(run)
    assert run.step == 6
    assert validated(run) == [4, 6]


def test_validation_may_come_less_often_but_always_at_the_end():
    run = make_run(val_interval=2, total_steps=12, schedule=lambda _: 0.01)
    fit(run)
    assert validated(run) == [8, 12]


def test_the_average_is_validated_too_and_decides_what_is_best():
    run = make_run(ema=True)
    evaluation = fit(run)
    _, evaluations, _ = run.saved[-1]  # type: ignore[attr-defined]
    assert set(evaluations) == {"val", "val_ema"}
    assert evaluation == evaluations["val_ema"]
    assert run.best_top1 == max(e["val_ema"].top1 for _, e, _ in run.saved if e)  # type: ignore[attr-defined]


def test_the_average_follows_its_formula():
    run = make_run(ema=True, total_steps=1)
    train_epoch(run)  # timm: the average starts as the weights after the first step
    first = [parameter.detach().clone() for parameter in run.plain_model.parameters()]
    run.total_steps = 2
    train_epoch(run)
    assert run.ema is not None
    for old, new, mean in zip(first, run.plain_model.parameters(), run.ema.module.parameters(), strict=True):
        assert torch.allclose(mean, 0.5 * old + 0.5 * new)


def test_only_a_better_top1_is_best():
    run = make_run(schedule=lambda _: 0.0)
    fit(run)
    assert [is_best for _, evaluations, is_best in run.saved if evaluations] == [True, False]  # type: ignore[attr-defined]


def test_a_loss_that_is_not_finite_stops_the_run_before_it_is_saved():
    run = make_run(mix=lambda batch: (batch.images * math.inf, one_hot(batch)[1]))
    with pytest.raises(UserError, match="the training loss is nan at step 3"):
        fit(run)
    assert run.saved == []  # type: ignore[attr-defined]


def test_what_was_trained_is_saved_before_it_is_evaluated():
    """An image that cannot be read costs the figures, not the epoch."""

    class Unreadable:
        def __iter__(self):
            raise UserError("broken.jpg cannot be decoded")

    run = make_run(val_batches=Unreadable())
    with pytest.raises(UserError, match=r"broken.jpg"):
        fit(run)
    assert [(step, evaluations) for step, evaluations, _ in run.saved] == [(4, {})]  # type: ignore[attr-defined]


def test_a_validation_that_is_owed_is_made_first():
    run = make_run(step=8, owes_validation=True)
    assert fit(run).n == 24
    assert validated(run) == [8]
    assert not run.owes_validation


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
    run = make_run(tracker=Tracker(tmp_path, Recipe()), schedule=lambda _: 0.0, log_interval=2, total_steps=2)
    fit(run)
    model = network().train()
    losses = [F.cross_entropy(model(made_up(step)[0]), made_up(step)[1]).item() for step in range(2)]
    row = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[0])
    assert row["train/loss"] == pytest.approx(sum(losses) / 2, rel=1e-5)


def test_gradients_are_clipped_to_their_norm():
    run = make_run(clip_grad=1e-3, total_steps=1, schedule=lambda _: 1.0)
    before = [parameter.detach().clone() for parameter in run.plain_model.parameters()]
    for group in run.optimizer.param_groups:
        group["weight_decay"] = 0.0
    train_epoch(run)
    moved = torch.cat([(p - old).flatten() for p, old in zip(run.plain_model.parameters(), before, strict=True)])
    assert moved.norm().item() == pytest.approx(1e-3, rel=1e-3)
