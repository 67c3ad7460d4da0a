"""A run says and logs what it did: its own figures, and those that other parts contribute."""

import csv
import json
import math
import re
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from PIL import Image

from backbones import terminal
from backbones.errors import UserError
from backbones.recipe import Recipe
from backbones.training import report as report_module
from backbones.training.evaluate import Evaluation
from backbones.training.health.health import Health
from backbones.training.health.monitor import Row
from backbones.training.report import Moment, Report, show_validation
from backbones.training.tracking import Tracker

pytestmark = pytest.mark.usefixtures("fresh_accelerate")
FIGURES = Evaluation(top1=50.0, top5=75.0, loss=1.25, n=40)


def make_report(folder=None, **fields) -> Report:
    tracker = Tracker(folder, Recipe()) if folder else None
    defaults = {"total_steps": 100, "steps_per_epoch": 10, "batch_size": 8, "interval": 2, "tracker": tracker}
    return Report(Accelerator(cpu=True), lambda step: step / 1000, **(defaults | fields))


def step(report: Report, number: int, *losses: float) -> None:
    report.losses.extend(torch.tensor(loss) for loss in losses)
    if report.count_step(number):
        report.log(number)


def rows(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_row_has_the_mean_loss_the_rate_and_the_place_in_the_run(tmp_path):
    report = make_report(tmp_path)
    step(report, 1, 1.0, 2.0)
    assert not (tmp_path / "metrics.jsonl").exists()
    step(report, 2, 3.0, 6.0)
    (row,) = rows(tmp_path)
    assert {key: row[key] for key in ("step", "epoch", "images_seen", "train/loss", "train/lr")} == {
        "step": 2, "epoch": 0.2, "images_seen": 16, "train/loss": 3.0, "train/lr": 0.002,
    }  # fmt: skip


def test_losses_are_means_over_the_processes():
    """The other process has three times the loss of this one."""
    two: Any = SimpleNamespace(
        num_processes=2,
        is_main_process=False,
        gradient_accumulation_steps=1,
        device=torch.device("cpu"),
        reduce=lambda own, reduction: own + 3 * own if reduction == "sum" else None,
    )
    seen: list[Row] = []
    monitor: Any = SimpleNamespace(collect=lambda _step: None, judge=lambda row, _values: seen.append(row))
    report = Report(two, lambda _: 0.0, 100, 10, 8, 2, health=Health([monitor]))
    step(report, 2, 1.0, 2.0)
    assert report.last_loss == 3.0
    assert seen[0].losses == [2.0, 4.0]


def test_the_loss_of_an_epoch_weighs_every_micro_batch_alike(tmp_path):
    """The last row of an epoch can be shorter: (1 + 1 + 4) / 3."""
    report = make_report(tmp_path)
    step(report, 2, 1.0, 1.0)
    step(report, 4, 4.0)
    report.log_validation(4, {"val": FIGURES}, is_best=True)
    with (tmp_path / "summary.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert float(row["train/loss"]) == 2.0


def test_any_part_may_contribute_numbers_and_pictures_at_both_moments(tmp_path):
    moments: list[Moment] = []

    def watch(moment: Moment):
        moments.append(moment)
        return {"gpu/memory": 7} if moment.kind == "interval" else {"fusion/map": Image.new("RGB", (2, 2))}

    report = make_report(tmp_path, contributions=[watch])
    step(report, 2, 1.0)
    report.log_validation(2, {"val": FIGURES}, is_best=True)
    interval, validation = rows(tmp_path)
    assert interval["gpu/memory"] == 7
    assert validation["val/top1"] == 50.0
    assert (tmp_path / "pictures" / "fusion" / "map" / "00000002-validation.png").is_file()
    assert moments == [Moment("interval", 2, 0.2, 16), Moment("validation", 2, 0.2, 16)]


def test_counters_go_on_from_those_of_the_checkpoint_without_being_known(tmp_path):
    counted = {"data/replaced": 1, "data/other": 0}
    report = make_report(tmp_path, count=lambda: counted)
    report.load_state_dict({"losses": [[]], "norms": {}, "rows": [], "counters": {"data/replaced": 10}})
    step(report, 2, 1.0)
    counted["data/replaced"] = 4
    step(report, 4, 1.0)
    assert [(row["data/replaced"], row["data/other"]) for row in rows(tmp_path)] == [(11, 0), (14, 0)]
    counted["data/other"] = 3  # between two rows
    assert report.state_dict()["counters"] == {"data/replaced": 14, "data/other": 3}


@pytest.mark.parametrize(("processes", "index", "own"), [(2, 0, [1.0, 2.0]), (2, 1, [3.0, 4.0]), (1, 0, [2.0, 3.0])])
def test_losses_since_the_last_row_are_kept_for_each_process(monkeypatch, processes, index, own):
    """The other process of the run that is saved has losses that are larger by 2. On another number of processes, each
    goes on with the mean."""
    saved = make_report()
    step(saved, 1, 1.0, 2.0)
    monkeypatch.setattr(report_module, "gather_object", lambda losses: [losses[0], [loss + 2 for loss in losses[0]]])
    state = saved.state_dict()
    place: Any = SimpleNamespace(device=torch.device("cpu"), num_processes=processes, process_index=index)
    resumed = Report(place, lambda _: 0.0, 100, 10, 8, 2)
    resumed.load_state_dict(state)
    assert [loss.item() for loss in resumed.losses] == own


def test_a_state_between_two_rows_gives_the_same_row_after_a_resume(tmp_path):
    """Losses are float32: their sum must not change on the way through a checkpoint."""
    straight, first = make_report(tmp_path / "a"), make_report(tmp_path / "b")
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    for report in (straight, first):
        step(report, 1, 0.1, 1 / 3)
    second = make_report(tmp_path / "b")
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    for report in (straight, second):
        step(report, 2, 2 / 3)
    assert rows(tmp_path / "a")[0]["train/loss"] == rows(tmp_path / "b")[0]["train/loss"]


def test_the_summary_has_the_mean_loss_since_the_last_validation(tmp_path):
    report = make_report(tmp_path)
    for validation, losses in enumerate([(1.0, 3.0), (5.0, 6.0)]):
        for number, loss in enumerate(losses, start=1):
            step(report, 4 * validation + 2 * number, loss)
        report.log_validation(4 * validation + 4, {"val": FIGURES}, is_best=False)
    lines = (tmp_path / "summary.csv").read_text().splitlines()
    assert [line.split(",")[1:4] for line in lines[1:]] == [["4", "2.0", "0.004"], ["8", "5.5", "0.008"]]


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_the_run(loss):
    with pytest.raises(UserError, match=r"the training loss is (nan|inf) at step 2"):
        step(make_report(), 2, 1.0, loss)


def test_the_display_shows_loss_and_rate_from_the_first_line_on(monkeypatch, capsys):
    monkeypatch.setattr(terminal, "SECONDS_BETWEEN_LINES", 0.0)
    report = make_report(interval=50)
    with report.running(0):
        step(report, 1, 2.0)
        step(report, 2, 4.0)
    shown = capsys.readouterr().out.splitlines()
    assert [re.sub(r"\d+ images/s.*", "...", line) for line in shown] == [
        "epoch 1  1/100 steps  loss 2.000  lr 0.001  ...",
        "epoch 1  2/100 steps  loss 3.000  lr 0.002  ...",
    ]
    assert "data wait" in shown[0]
    assert report.task is not None


def test_a_validation_moves_the_display_and_shows_top1_so_far(monkeypatch, capsys):
    monkeypatch.setattr(terminal, "SECONDS_BETWEEN_LINES", 0.0)
    two: Any = SimpleNamespace(is_main_process=True, num_processes=2)
    with show_validation(two, "val", 40) as show:
        show(torch.tensor([5.0, 8.0, 1.0, 10.0], dtype=torch.float64))
    assert capsys.readouterr().out.startswith("val  20/40 images  top-1 50.00 % so far")


def test_figures_are_printed_with_their_epoch(capsys):
    make_report().log_validation(20, {"val": FIGURES, "val_ema": FIGURES}, is_best=True)
    assert capsys.readouterr().out.splitlines() == [
        "epoch   2  val      top-1 50.000 %  top-5 75.000 %  loss 1.2500  n 40  best",
        "epoch   2  val_ema  top-1 50.000 %  top-5 75.000 %  loss 1.2500  n 40  best",
    ]


def test_a_contribution_cannot_replace_another_metric(tmp_path):
    report = make_report(tmp_path, contributions=[lambda _moment: {"train/loss": 0.0}])
    with pytest.raises(ValueError, match="a contribution has a metric that exists already: train/loss"):
        step(report, 2, 1.0)


def test_an_event_is_a_line_and_a_row_of_its_own(tmp_path, capsys):
    make_report(tmp_path).event(7, "alarm/loss", "the loss of step 7 is 9.5", loss=9.5)
    assert capsys.readouterr().out.split(maxsplit=1) == ["alarm", "the loss of step 7 is 9.5\n"]
    assert rows(tmp_path) == [{"step": 7, "event": "alarm/loss", "text": "the loss of step 7 is 9.5", "loss": 9.5}]


def test_an_event_is_an_alert_of_wandb(tmp_path):
    sent: list[tuple[str, str]] = []
    report = make_report(tmp_path)
    mirror: Any = SimpleNamespace(alert=lambda title, text: sent.append((title, text)))
    report.tracker.wandb = mirror  # type: ignore[union-attr]
    report.event(7, "rollback", "back to step 5")
    assert sent == [("rollback", "back to step 5")]
