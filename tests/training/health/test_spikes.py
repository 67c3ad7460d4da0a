"""A spike is told from noise, from a falling loss, and from burn-in."""

import json
import math

import pytest
import torch

from backbones.recipe import Log, Recipe
from backbones.training.health.health import Health
from backbones.training.health.monitor import Row
from backbones.training.health.spikes import GradientSpikes, LossSpikes
from backbones.training.loop import fit
from backbones.training.tracking import Tracker
from tests.training.make_runs import make_run, one_hot


def noise(count: int, mean: float, spread: float) -> list[float]:
    return (mean + spread * torch.randn(count, generator=torch.Generator().manual_seed(1)).double()).tolist()


def judge_losses(monitor: LossSpikes, losses: list[float], last: int):
    return monitor.judge(Row(last, losses), [])


def judge_norms(monitor: GradientSpikes, norms: list[float], last: int):
    return monitor.judge(Row(last, norms=dict(enumerate(norms, last - len(norms) + 1))), [])


def test_a_loss_of_ten_among_losses_of_five_is_a_spike():
    monitor = LossSpikes()
    assert judge_losses(monitor, noise(200, 5.0, 0.2), 200) == []
    (found,) = judge_losses(monitor, [5.1, 8.0, 10.0, 5.0], 204)
    assert found.alarm == "loss_spike"
    assert found.text.startswith("the loss of step 203 is 10, and the median of 200 steps before is 4.9")
    assert found.numbers["at"] == 203


@pytest.mark.parametrize(
    "losses",
    [
        [6.9 * math.exp(-step / 100) + 0.5 for step in range(600)],
        [2.3 if step % 2 else 3.3 for step in range(600)],  # mixed and unmixed batches in turn
        noise(2000, 0.5, 0.15),
        [5.0] * 99 + [50.0],  # too early to know what is normal
    ],
)
def test_what_is_no_spike(losses):
    assert judge_losses(LossSpikes(), losses, len(losses)) == []


def test_a_loss_far_out_but_not_much_higher_is_no_spike():
    """Twenty standard deviations, but a third only."""
    assert judge_losses(LossSpikes(), [*noise(200, 6.0, 0.1), 8.0], 201) == []


def test_a_loss_much_higher_but_in_the_noise_is_no_spike():
    losses = [0.1, 0.1, 0.1, 0.4] * 50  # 0.4 is four times the median, and two deviations above the mean
    assert judge_losses(LossSpikes(), losses, len(losses)) == []


def test_a_norm_of_eleven_times_the_median_is_a_spike():
    monitor = GradientSpikes()
    assert judge_norms(monitor, noise(300, 2.0, 0.1), 300) == []
    (found,) = judge_norms(monitor, [2.0, 22.0], 302)
    assert (found.alarm, found.numbers["at"], found.numbers["value"]) == ("gradient_spike", 302, 22.0)
    assert judge_norms(monitor, [18.0], 303) == []


def test_a_gradient_that_grows_during_burn_in_is_no_spike():
    norms = [0.1 * 1.008**step for step in range(500)]  # 53 times as large at the end
    assert judge_norms(GradientSpikes(), norms, 500) == []


def test_a_gradient_is_gone_when_all_of_a_row_are():
    monitor = GradientSpikes()
    assert judge_norms(monitor, [1e-9, 2e-7], 2) == []
    (found,) = judge_norms(monitor, [1e-9, 2e-8], 4)
    assert found.alarm == "gradient_gone"
    assert monitor.judge(Row(5), []) == []  # gradient scaling: there are no norms


def test_after_a_restart_nothing_is_a_spike_until_enough_was_seen():
    losses, norms = LossSpikes(), GradientSpikes()
    judge_losses(losses, noise(200, 5.0, 0.2), 200)
    judge_norms(norms, noise(200, 5.0, 0.2), 200)
    for monitor in (losses, norms):
        monitor.restart()
    assert judge_losses(losses, [100.0], 150) == judge_norms(norms, [100.0], 150) == []


@pytest.mark.usefixtures("fresh_accelerate")
def test_a_bad_batch_in_a_run_is_two_rows_of_metrics(tmp_path):
    count = iter(range(1000))

    def mix(batch):
        images, targets = one_hot(batch)
        return (images * 1000 if next(count) == 130 else images), targets

    run = make_run(
        mix=mix,
        total_steps=150,
        schedule=lambda _: 1e-6,
        tracker=Tracker(tmp_path, Recipe()),
        recipe=Recipe(log=Log(interval=50), val_interval=100),
    )
    run.plain_model[1].eval()  # type: ignore[index]  # BatchNorm would take the factor away
    run.plain_model.train = lambda *_: run.plain_model  # type: ignore[method-assign]
    run.report.health = Health([LossSpikes(), GradientSpikes()])
    fit(run)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    events = [row for row in rows if "event" in row]
    assert [(row["step"], row["event"], row["at"]) for row in events] == [
        (132, "alarm/loss_spike", 131),
        (132, "alarm/gradient_spike", 131),
    ]
