"""A fusion input that died or starves is named within the first 500 steps; healthy ones are left alone."""

import json

import pytest
import torch
from torch import nn
from torch.optim import SGD

from backbones.assembly.health import find_shortcuts
from backbones.layers import WeightedShortcut
from backbones.recipe import Log, Recipe
from backbones.training.health.fusion import FusionWeights, Shortcut
from backbones.training.health.health import Health
from backbones.training.health.monitor import Finding, Row
from backbones.training.loop import fit
from backbones.training.reading import read_device
from backbones.training.tracking import Tracker
from tests.training.make_runs import make_run


class Fusing(nn.Module):
    """Two convolutions whose results are added with weights; ``dead`` is a second branch that is always zero."""

    def __init__(self, *, dead: bool = False, raw: float = 1.0, **fusion) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3)
        self.shortcut = WeightedShortcut([4, 4], **{"weights_type": "per_feature", "normalization": "relu"} | fusion)
        self.shortcut.weight.data[1] = raw  # type: ignore[union-attr]
        self.factor = 0.0 if dead else 1.0
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))

    def forward(self, x):
        return self.head(self.shortcut(self.first(x), self.factor * self.second(x)))


def events_of(model: nn.Module, folder, steps: int) -> list[dict]:
    """Train with a row every 50 steps and a look every 100, and return the alarms."""
    run = make_run(
        model,
        total_steps=steps,
        schedule=lambda _: 0.001,
        tracker=Tracker(folder, Recipe()),
        recipe=Recipe(log=Log(interval=50), val_interval=1000),
    )
    run.train_batches.steps_per_epoch = 1000
    run.report.health = Health([FusionWeights(find_shortcuts(model), run.optimizer.optimizer, 100)])
    fit(run)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if "event" in row]


@pytest.mark.usefixtures("fresh_accelerate")
def test_a_relu_weight_below_its_floor_is_dead_at_the_first_look(tmp_path):
    """As darknet's layer 27, which died at the very start."""
    (event,) = events_of(Fusing(raw=-0.1), tmp_path, 150)
    assert (event["step"], event["event"], event["input"]) == (100, "alarm/fusion_dead", 1)
    assert event["text"].startswith("input 1 of shortcut is dead: its raw weight is -0.1, its share 0.00")


@pytest.mark.usefixtures("fresh_accelerate")
def test_an_input_without_a_gradient_is_dead(tmp_path):
    """Its weight is 1, but its branch gives nothing."""
    (event,) = events_of(Fusing(dead=True, normalization="none"), tmp_path, 150)
    assert (event["step"], event["event"]) == (100, "alarm/fusion_dead")
    assert "it got no gradient since step 0" in event["text"]


@pytest.mark.usefixtures("fresh_accelerate")
def test_a_softmax_input_with_next_to_no_share_is_starved_within_500_steps(tmp_path):
    (event,) = events_of(Fusing(normalization="softmax", raw=-6.0), tmp_path, 500)
    assert (event["step"], event["event"]) == (400, "alarm/fusion_starved")
    assert event["share"] == pytest.approx(torch.tensor([1.0, -6.0]).softmax(0)[1].item(), rel=0.2)


@pytest.mark.usefixtures("fresh_accelerate")
@pytest.mark.parametrize("fusion", [{"normalization": "softmax"}, {"weights_type": "per_channel"}])
def test_a_healthy_shortcut_is_quiet(tmp_path, fusion):
    assert events_of(Fusing(**fusion), tmp_path, 450) == []


class Rig:
    """A shortcut without a network: the test sets its gradients and looks every 100 steps."""

    def __init__(self, raw, *, widths=None, floor=None, normalize=True, trains=True) -> None:
        self.weight = nn.Parameter(torch.tensor(raw), requires_grad=trains)
        widths = widths or [self.weight.shape[1]] * len(self.weight)
        shares = (lambda: self.weight.softmax(0)) if normalize else (lambda: self.weight)
        self.optimizer = SGD([self.weight], lr=0.0)
        self.monitor = FusionWeights([Shortcut("fuse", self.weight, shares, widths, floor)], self.optimizer, 100)

    def look(self, step: int, *gradients) -> list[Finding] | None:
        for gradient in gradients:
            self.weight.grad = torch.tensor(gradient)
            self.optimizer.step()
        (values,) = read_device([self.monitor.collect(step), torch.zeros(1)])[:1]
        return self.monitor.judge(Row(step), values)

    def alarms(self, steps, gradient) -> list[tuple[int, str]]:
        return [(step, finding.alarm) for step in steps for finding in self.look(step, gradient) or []]


LIVE, STILL = [[0.1], [0.2]], [[0.1], [0.0]]


def test_one_gradient_in_a_hundred_steps_is_a_sign_of_life():
    rig = Rig([[1.0], [1.0]])
    for step in (100, 200, 300):
        assert rig.look(step, STILL, [[0.0], [-1e-20]], STILL) == []
    assert [finding.place for finding in rig.look(400, STILL, STILL) or []] == ["input 1 of fuse"]
    assert rig.look(500, LIVE) == []


def test_a_weight_that_the_optimizer_never_gets_a_gradient_for_is_dead():
    rig = Rig([[1.0], [1.0]])
    rig.weight.grad = None
    rig.optimizer.step()
    (values,) = read_device([rig.monitor.collect(100)])
    assert len(rig.monitor.judge(Row(100), values) or []) == 2


def test_a_frozen_weight_is_not_dead():
    assert Rig([[1.0], [1.0]], trains=False).alarms(range(100, 600, 100), [[0.0], [0.0]]) == []


def test_a_share_must_be_low_for_300_steps():
    rig = Rig([[1.0], [-6.0]])
    assert rig.alarms([100, 200, 300], LIVE) == []
    rig.weight.data[1] = 0.0
    assert rig.alarms([400], LIVE) == []
    rig.weight.data[1] = -6.0
    assert rig.alarms([500, 600, 700, 800], LIVE) == [(800, "fusion_starved")]


def test_a_share_that_flutters_about_its_limit_stays_starved():
    rig = Rig([[0.0], [-6.0]])
    assert rig.alarms(range(100, 500, 100), LIVE) == [(400, "fusion_starved")]
    rig.weight.data[1] = -4.2  # 0.015
    assert rig.alarms([500], LIVE) == [(500, "fusion_starved")]
    rig.weight.data[1] = -3.8  # 0.022
    assert rig.alarms([600], LIVE) == []


def test_an_equal_share_of_many_inputs_is_not_starved():
    assert Rig([[0.0]] * 200).alarms(range(100, 600, 100), [[0.1]] * 200) == []


def test_a_negative_weight_without_normalization_is_a_weight():
    assert Rig([[1.0], [-0.5]], normalize=False).alarms(range(100, 600, 100), LIVE) == []


def test_an_input_lives_as_long_as_one_of_its_channels():
    gradient = [[0.1, 0.1], [0.0, 0.1]]
    assert Rig([[1.0, 1.0], [-9.0, 1.0]]).alarms(range(100, 600, 100), gradient) == []


def test_weights_of_channels_that_a_narrow_input_does_not_have_do_not_count():
    gradient = [[0.1, 0.1], [0.0, 0.1]]
    narrow = Rig([[1.0, 1.0], [-9.0, 1.0]], widths=[2, 1])
    assert narrow.alarms([100], gradient) == [(100, "fusion_dead")]


def test_a_weight_below_its_floor_is_dead_even_if_it_got_a_gradient_before():
    rig = Rig([[1.0], [0.0009]], floor=0.001)
    assert rig.alarms([100], LIVE) == [(100, "fusion_dead")]
    rig.weight.data[1] = 0.0011
    assert rig.alarms([200], LIVE) == []


def test_after_a_restart_the_steps_without_a_gradient_are_counted_anew():
    rig = Rig([[1.0], [1.0]])
    assert rig.alarms([100], STILL) == [(100, "fusion_dead")]
    rig.monitor.restart()
    assert rig.look(5080, STILL) is None
    assert rig.alarms([5130], STILL) == []  # 50 steps
    assert rig.alarms([5230], STILL) == [(5230, "fusion_dead")]


def test_after_a_restart_the_steps_with_a_low_share_are_counted_anew():
    rig = Rig([[1.0], [-6.0]])
    assert rig.alarms([100, 200, 300], LIVE) == []
    rig.monitor.restart()
    assert rig.alarms([2080, 2100, 2200, 2300, 2400], LIVE) == [(2400, "fusion_starved")]


def test_a_network_without_weights_has_nothing_to_watch():
    plain = Fusing(normalization="relu")
    plain.shortcut = WeightedShortcut([4, 4])
    assert find_shortcuts(plain) == []
    monitor = FusionWeights([], SGD(plain.parameters(), lr=0.1), 100)
    assert monitor.collect(100) is None
    assert monitor.judge(Row(100), []) is None
