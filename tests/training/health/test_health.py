"""All monitors together change nothing, wait for nothing, and say what is wrong."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from backbones.errors import UserError
from backbones.recipe import Log, Recipe
from backbones.training.health.batch_norm import BatchNormStatistics
from backbones.training.health.fusion import FusionWeights, Shortcut
from backbones.training.health.health import Health
from backbones.training.health.monitor import Finding, Row
from backbones.training.health.spikes import GradientSpikes, LossSpikes
from backbones.training.loop import Run, fit
from backbones.training.tracking import Tracker
from tests.training.make_runs import make_run, network, same, weights

pytestmark = pytest.mark.usefixtures("fresh_accelerate")
STEPS = 104


class Share(nn.Module):
    """A scale that counts as a fusion weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, 1))

    def forward(self, x):
        return self.weight[0, 0] * x


def watched_run(folder: Path, *, watch: bool, micro_batches: int = 1, **fields) -> Run:
    recipe = Recipe(log=Log(interval=10), val_interval=1000)
    fields = {"total_steps": STEPS, "schedule": lambda _: 0.001, "tracker": Tracker(folder, recipe)} | fields
    folder.mkdir(exist_ok=True)
    share = Share()
    run = make_run(nn.Sequential(network(), share), micro_batches=micro_batches, recipe=recipe, **fields)
    run.train_batches.steps_per_epoch = STEPS
    if watch:
        shortcut = Shortcut("share", share.weight, lambda: share.weight, [1])
        fusion = FusionWeights([shortcut], run.optimizer.optimizer, 20)
        norms = BatchNormStatistics(run.model, run.accelerator)
        norms.every.steps = 20
        run.report.health = Health([fusion, norms, LossSpikes(), GradientSpikes()], folder)
    return run


def rows(folder: Path) -> list[dict]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if not key.startswith("perf/")} for row in lines]


@pytest.mark.parametrize("micro_batches", [1, 2])
def test_a_watched_run_is_the_same_run_with_the_same_rows(tmp_path, micro_batches):
    runs = {}
    for watch in (False, True):
        runs[watch] = watched_run(tmp_path / str(watch), watch=watch, micro_batches=micro_batches)
        fit(runs[watch])
    assert same(weights(runs[True]), weights(runs[False]))
    assert rows(tmp_path / "True") == rows(tmp_path / "False")
    assert len(rows(tmp_path / "True")) == 12  # rows of ten steps, of the last four, and of the validation: no alarm


def test_monitors_wait_for_the_device_no_more_often(tmp_path, monkeypatch):
    waits = {}
    for watch in (False, True):
        run, count = watched_run(tmp_path / str(watch), watch=watch), []
        with monkeypatch.context() as patch:
            for name in ("item", "tolist", "__bool__", "__float__", "__int__", "cpu", "numpy"):
                patch.setattr(torch.Tensor, name, counting(getattr(torch.Tensor, name), count))
            fit(run)
        waits[watch] = len(count)
    assert waits[True] == waits[False] > STEPS  # on a CPU, the guard looks at every step


def counting(function, count: list):
    def call(*arguments, **options):
        count.append(function)
        return function(*arguments, **options)

    return call


class Script:
    """A monitor that finds what it is told, by step."""

    def __init__(self, **findings: Finding) -> None:
        self.findings = {int(step[1:]): finding for step, finding in findings.items()}
        self.seen: list[tuple[int, list[float]]] = []
        self.rows: list[Row] = []
        self.restarts = 0

    def collect(self, step):
        return torch.full((2,), float(step)) if step % 20 == 0 else None

    def judge(self, row, values):
        self.seen.append((row.step, values))
        self.rows.append(row)
        found = self.findings.get(row.step)
        return [found] if found else []

    def restart(self):
        self.restarts += 1


def test_each_monitor_gets_its_own_values_and_each_step_of_the_row(tmp_path):
    run, first, second = watched_run(tmp_path, watch=False, micro_batches=3), Script(), Script()
    run.report.health = Health([first, second])
    fit(run)
    expected = [(step, [step, step] if step % 20 == 0 else []) for step in range(10, 101, 10)]
    assert first.seen == second.seen == [*expected, (104, [])]
    assert [len(row.losses) for row in first.rows] == [10] * 10 + [4]
    assert list(first.rows[-1].norms) == [101, 102, 103, 104]
    logged = [row["train/loss"] for row in rows(tmp_path) if "train/loss" in row]
    assert [sum(row.losses) / len(row.losses) for row in first.rows] == pytest.approx(logged)
    norms = [row["train/grad_norm"] for row in rows(tmp_path) if "train/grad_norm" in row]
    assert [sum(row.norms.values()) / len(row.norms) for row in first.rows] == pytest.approx(norms)
    assert all(0 <= row.waited < row.seconds for row in first.rows)


def test_an_alarm_is_an_event_after_its_row(tmp_path, capsys):
    run = watched_run(tmp_path, watch=False)
    run.report.health = Health([Script(s20=Finding("hot", "it is hot", {"degrees": 40.0}))])
    fit(run)
    at = rows(tmp_path)[1:3]
    assert at[0]["train/loss"] > 0
    assert at[1] == {"step": 20, "event": "alarm/hot", "text": "it is hot", "degrees": 40.0}
    lines = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    assert ["alarm", "it is hot"] in lines


def test_a_finding_may_end_the_run(tmp_path):
    run = watched_run(tmp_path, watch=False)
    run.report.health = Health([Script(s20=Finding("replicas", "a machine computes wrong", stops=True))])
    with pytest.raises(UserError, match="a machine computes wrong"):
        fit(run)
    assert run.step == 20
    assert rows(tmp_path)[-1]["event"] == "alarm/replicas"


def test_a_state_that_is_loaded_restarts_the_monitors(tmp_path):
    run, script = watched_run(tmp_path, watch=False), Script()
    run.report.health = Health([script])
    run.report.load_state_dict(run.report.state_dict())
    assert script.restarts == 1
