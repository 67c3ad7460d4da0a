"""A step whose loss or gradient is not finite is not taken, and nothing that is not finite is saved."""

import json
import math

import pytest
import torch
from accelerate import Accelerator
from torch import nn
from torch.optim import SGD

from backbones.errors import UserError
from backbones.recipe import Log, Optim, Recipe
from backbones.training.fusion_update import FusionSGD, fusion_groups
from backbones.training.guard import forbid_update, measure_gradient, require_finite_weights, spread_nan
from backbones.training.loop import fit
from backbones.training.tracking import Tracker
from tests.training.make_runs import FakeCheckpoints, make_run, network, one_hot, same, saved, weights

pytestmark = pytest.mark.usefixtures("fresh_accelerate")
RECIPE = Recipe(log=Log(interval=50))


class Poison(torch.autograd.Function):
    """The identity, whose gradient is NaN: the loss stays finite."""

    @staticmethod
    def forward(_context, x):
        return x.clone()

    @staticmethod
    def backward(_context, *gradients):
        return gradients[0] * math.nan


class Poisoned(nn.Module):
    """A network that is poisoned in the given forward pass of training, from 0."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.network, self.at, self.passes = network(), at, 0

    def forward(self, x):
        self.passes += self.training
        is_bad = self.training and self.passes - 1 == self.at
        return Poison.apply(self.network(x)) if is_bad else self.network(x)


def one_bad_image(at: int):
    """Return a function that mixes as usual, but puts an infinite pixel into the ``at``-th batch, from 0."""
    count = iter(range(100))

    def mix(batch):
        images, targets = one_hot(batch)
        return (images * math.inf if next(count) == at else images), targets

    return mix


@pytest.mark.parametrize("step", [1, 3, 8])
@pytest.mark.parametrize("kind", ["loss", "gradient"])
@pytest.mark.parametrize("clip", [None, 1.0])
def test_the_step_is_not_taken_and_the_images_are_named(tmp_path, step, kind, clip):
    """Also in the very last step, and with rows every 50 steps only."""
    recipe = Recipe(log=Log(interval=50), optim=Optim(clip_grad=clip))
    good = make_run(recipe=recipe, total_steps=step - 1) if step > 1 else None
    if good:
        fit(good)
    fields = {"mix": one_bad_image(step - 1)} if kind == "loss" else {}
    model = network() if kind == "loss" else Poisoned(step - 1)
    run = make_run(model, recipe=recipe, checkpoints=FakeCheckpoints(folder=tmp_path), **fields)
    with pytest.raises(UserError, match=f"the loss or the gradient of step {step} is not finite: it was not taken"):
        fit(run)
    names = (tmp_path / f"not-finite-step-{step}-rank-0.txt").read_text().splitlines()
    assert names == [f"step{step - 1}/{number}.jpg" for number in range(6)]
    assert all(at < step for at, _, _ in saved(run))
    before = weights(good) if good else [*network().state_dict().values()]
    parameters = {name for name, _ in network().named_parameters()}
    for name, old, new in zip(network().state_dict(), before, weights(run), strict=True):
        assert name not in parameters or torch.equal(old, new), name


def test_accumulated_micro_batches_stop_at_their_step(tmp_path):
    checkpoints = FakeCheckpoints(folder=tmp_path)
    run = make_run(micro_batches=2, mix=one_bad_image(2), recipe=RECIPE, checkpoints=checkpoints)
    with pytest.raises(UserError, match="of step 2 is not finite"):
        fit(run)


def test_the_factor_of_a_finite_loss_changes_nothing():
    x = torch.tensor(0.3, requires_grad=True)
    (loss := (x * 1.7).exp()).backward()
    plain, x.grad = x.grad, None
    spread_nan((x * 1.7).exp()).backward()
    assert torch.equal(x.grad, plain)  # type: ignore[arg-type]
    assert torch.equal(spread_nan(loss.detach()), loss.detach())


def test_an_infinite_loss_has_no_finite_gradient():
    x = torch.tensor(1.0, requires_grad=True)
    spread_nan(x + math.inf).backward()
    assert x.grad is not None
    assert x.grad.isnan()


def test_the_norm_is_that_of_the_whole_gradient():
    layer = nn.Linear(2, 1)
    layer.weight.grad, layer.bias.grad = torch.tensor([[3.0, 4.0]]), torch.tensor([12.0])
    assert measure_gradient(Accelerator(cpu=True), layer.parameters(), None) == 13.0
    assert measure_gradient(Accelerator(cpu=True), layer.parameters(), 6.5) == 13.0
    assert torch.allclose(layer.weight.grad, torch.tensor([[1.5, 2.0]]))


@pytest.mark.parametrize("kind", ["sgd", "fusion"])
def test_a_fused_optimizer_skips_what_is_forbidden_on_the_device_and_nothing_else(kind):
    """The path of a GPU, on the CPU: nothing is read by the host."""
    weight = nn.Parameter(torch.ones(3))
    groups = fusion_groups([(weight, 0)], batch_size=1) if kind == "fusion" else [{"params": [weight]}]
    optimizer = (FusionSGD if kind == "fusion" else SGD)(groups, lr=0.1, momentum=0.9, fused=True)
    results = []
    for gradient in (1.0, math.nan, 1.0):
        weight.grad = torch.full((3,), gradient)
        forbid_update(optimizer, weight.grad.norm())
        optimizer.step()
        results.append(weight.detach().clone())
    assert torch.equal(results[0], results[1])
    assert torch.allclose(results[0], torch.full((3,), 0.9))
    assert torch.allclose(results[2], torch.full((3,), 0.9 - 0.1 * (1.0 if kind == "fusion" else 1.9)))


def test_weights_that_are_not_finite_are_refused_by_name():
    layer = nn.BatchNorm2d(2)
    require_finite_weights(layer.state_dict(), "last")
    layer.running_var[1] = math.inf  # type: ignore[index]
    with pytest.raises(UserError, match="last is not saved: running_var holds values that are not finite"):
        require_finite_weights(layer.state_dict(), "last")


def test_a_validation_that_is_not_finite_is_never_best():
    run = make_run(network(norm=False), recipe=RECIPE)
    run.val_batches[0].images.fill_(math.inf)  # type: ignore[index]
    with pytest.raises(UserError, match="the loss of the validation at step 4 is nan"):
        fit(run)
    assert [evaluations for _, evaluations, _ in saved(run)] == [{}]


def test_rows_have_the_mean_norm_of_the_gradient(tmp_path):
    run = make_run(tracker=Tracker(tmp_path, RECIPE), recipe=Recipe(log=Log(interval=2)), total_steps=2)
    seen: list[float] = []
    run.optimizer.optimizer.register_step_pre_hook(lambda *_: seen.append(norm_of(run.model)))
    fit(run)
    row = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[0])
    assert row["train/grad_norm"] == pytest.approx(sum(seen) / 2, rel=1e-5)


def norm_of(model: nn.Module) -> float:
    return math.sqrt(sum(float(p.grad.double().pow(2).sum()) for p in model.parameters() if p.grad is not None))


def test_a_guarded_run_is_the_run_without_a_guard():
    run = make_run(recipe=RECIPE)
    fit(run)
    again = make_run(recipe=RECIPE)
    fit(again)
    assert same(weights(run), weights(again))
