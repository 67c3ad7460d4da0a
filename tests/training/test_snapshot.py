"""A checkpoint holds all that a run needs to go on as the same run, wherever in an epoch it was written."""

import errno
import json
import math
import resource
import signal
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from backbones.errors import UserError
from backbones.recipe import Log, Recipe, Saving
from backbones.training import snapshot
from backbones.training.checkpoint import MODEL, load_state, read_description
from backbones.training.control import Control, Decision, StoppedError
from backbones.training.loop import Run, fit
from backbones.training.snapshot import (
    NEW_RUN,
    Snapshots,
    average_statistics,
    gather_statistics,
    load_statistics,
    read_state,
)
from backbones.training.tracking import Tracker
from tests import accelerate_state
from tests.training.make_runs import make_run, network, same, train, weights

pytestmark = pytest.mark.usefixtures("fresh_accelerate")


def snapshots_in(folder, **fields) -> Snapshots:
    recipe = fields.pop("recipe", Recipe(log=Log(interval=3)))
    return Snapshots(folder, recipe, ("a", "b", "c"), "images", "validation", **fields)


def run_in(folder, *, resume: bool = False, **fields) -> tuple[Run, bool]:
    """Return a run of four steps per epoch with a moving average and dropout, and whether it owes a validation."""
    accelerate_state.reset()
    folder.mkdir(exist_ok=True)
    recipe = Recipe(log=Log(interval=3), resume=str(folder) if resume else None)
    writer = snapshots_in(folder, recipe=recipe)
    tracker = Tracker(folder, recipe)
    run = make_run(network(dropout=0.5), ema=True, recipe=recipe, checkpoints=writer, tracker=tracker, **fields)
    state, _ = read_state(recipe, folder, run.accelerator, train="images", val="validation")
    if resume:
        writer.restore(run, state)
        tracker.rewind(run.step)
    return run, state["owes_validation"]


def rows(folder) -> list[dict]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{key: value for key, value in json.loads(line).items() if "perf/" not in key} for line in lines]


@pytest.mark.parametrize("step", [1, 2, 3, 4, 5, 7])
def test_a_run_saved_after_any_step_goes_on_as_the_same_run_without_validating_first(tmp_path, step):
    straight, _ = run_in(tmp_path / "straight")
    fit(straight)

    class KilledError(Exception):
        pass

    def save_and_die(share: float) -> None:
        if share == step / 8:
            first.checkpoints.write_last(first, {}, owes_validation=False)
            raise KilledError

    first, _ = run_in(tmp_path / "cut", on_step=save_and_die)
    with pytest.raises(KilledError):
        fit(first)
    second, owes_validation = run_in(tmp_path / "cut", resume=True)
    assert (second.step, owes_validation) == (step, False)
    fit(second)
    assert same(weights(straight), weights(second))
    assert same([*straight.ema.module.state_dict().values()], [*second.ema.module.state_dict().values()])  # type: ignore[union-attr]
    assert rows(tmp_path / "straight") == rows(tmp_path / "cut")


def test_a_validation_that_is_owed_is_in_the_checkpoint(tmp_path):
    run, _ = run_in(tmp_path)
    train(run)
    run.checkpoints.write_last(run, {}, owes_validation=True)
    assert load_state(tmp_path / "last")["owes_validation"] is True


def test_best_holds_no_training_state_but_its_figures(tmp_path):
    run, _ = run_in(tmp_path)
    evaluation = fit(run)
    about = read_description(tmp_path / "best" / MODEL) or {}
    assert about["evaluations"]["val_ema"]["top1"] == run.checkpoints.best_top1 >= evaluation.top1
    assert not (tmp_path / "best" / "state.pt").exists()


def test_other_processes_write_nothing(tmp_path, monkeypatch):
    run, _ = run_in(tmp_path)
    monkeypatch.setattr(Accelerator, "is_main_process", False)
    fit(run)
    assert not {"last", "best"} & {path.name for path in tmp_path.iterdir()}
    assert run.checkpoints.best_top1 > -math.inf


def test_a_state_of_version_0_1_is_read(tmp_path):
    """It kept the report's rows and one counter by themselves."""
    run, _ = run_in(tmp_path)
    train(run)
    run.checkpoints.write_last(run, {}, owes_validation=True)
    state = load_state(tmp_path / "last")
    report = state.pop("report")
    state |= {"reported": report["rows"], "replaced": 5}
    state["optimizer"].pop("kind")
    for key in ("schema", "batch_norm"):
        state.pop(key)
    torch.save(state, tmp_path / "last" / "state.pt")
    (tmp_path / "last" / "manifest.json").unlink()
    resumed, owes_validation = run_in(tmp_path, resume=True)
    assert owes_validation
    assert resumed.report.rows == run.report.rows
    assert resumed.report.counters == {"data/replaced": 5}


def test_in_another_folder_a_run_has_yet_to_find_its_best(tmp_path):
    run, _ = run_in(tmp_path / "old")
    fit(run)
    recipe = Recipe(log=Log(interval=3), resume=str(tmp_path / "old"))
    state, _ = read_state(recipe, tmp_path / "new", run.accelerator, train="images", val="validation")
    assert (state["best_top1"], state["wandb_id"]) == (-math.inf, None)


def test_without_a_checkpoint_a_run_is_new(tmp_path):
    assert read_state(Recipe(), tmp_path, Accelerator(cpu=True), train="a", val="b") == (NEW_RUN, {})


def test_a_cfg_that_has_changed_is_another_network(tmp_path):
    run, _ = run_in(tmp_path)
    train(run)
    run.checkpoints.write_last(run, {}, owes_validation=False)
    recipe = Recipe(log=Log(interval=3), resume=str(tmp_path))
    with pytest.raises(UserError, match="is not the network any more that the checkpoint was made with"):
        snapshots_in(tmp_path, recipe=recipe, cfg="[net]").restore(run, load_state(tmp_path / "last"))


def test_tensors_of_earlier_versions_are_renamed(tmp_path):
    run, _ = run_in(tmp_path)
    train(run)
    run.checkpoints.write_last(run, {}, owes_validation=False)

    class Renamed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = network(dropout=0.5)

        def forward(self, x):
            return self.inner(x)

    def current_names(tensors):
        return {f"inner.{name}": value for name, value in tensors.items()}

    accelerate_state.reset()
    recipe = Recipe(log=Log(interval=3), resume=str(tmp_path))
    writer = snapshots_in(tmp_path, recipe=recipe, current_names=current_names)
    second = make_run(Renamed(), ema=True, recipe=recipe, checkpoints=writer)
    writer.restore(second, load_state(tmp_path / "last"))
    assert same(weights(run), weights(second))


def test_a_lost_manifest_is_damage(tmp_path):
    run, _ = run_in(tmp_path)
    train(run)
    run.checkpoints.write_last(run, {}, owes_validation=False)
    (tmp_path / "last" / "manifest.json").unlink()
    with pytest.raises(UserError, match=r"last is damaged: manifest.json is missing"):
        run_in(tmp_path, resume=True)


def test_a_lost_average_is_damage_even_without_a_manifest(tmp_path):
    """As in a checkpoint of version 0.1. It would go on with the weights in place of their average."""
    run, _ = run_in(tmp_path)
    train(run)
    run.checkpoints.write_last(run, {}, owes_validation=False)
    state = load_state(tmp_path / "last")
    state.pop("schema")
    state["recipe"]["model_ema"] = True
    torch.save(state, tmp_path / "last" / "state.pt")
    for name in ("manifest.json", "ema.safetensors"):
        (tmp_path / "last" / name).unlink()
    with pytest.raises(UserError, match=r"last is damaged: ema.safetensors is missing"):
        run_in(tmp_path, resume=True)


def stopping_control(step: int, number: int) -> Control:
    control = Control(Accelerator(cpu=True), Saving(ckpt_minutes=None))
    decide = control.decide

    def decide_with_a_signal(at: int) -> Decision:
        if at == step:
            control.received = number
        return decide(at)

    control.decide = decide_with_a_signal  # type: ignore[method-assign]
    return control


@pytest.mark.parametrize("step", [2, 4, 5])
def test_a_run_ended_by_a_signal_goes_on_as_the_same_run(tmp_path, step):
    """Also at the edge of an epoch, where the validation is owed."""
    straight, _ = run_in(tmp_path / "straight")
    fit(straight)
    first, _ = run_in(tmp_path / "cut")
    first.checkpoints.control = stopping_control(step, signal.SIGTERM)  # type: ignore[attr-defined]
    with pytest.raises(StoppedError, match=f"stopped by SIGTERM after step {step}"):
        fit(first)
    second, owes_validation = run_in(tmp_path / "cut", resume=True)
    assert (second.step, owes_validation) == (step, step == 4)
    fit(second, owes_validation=owes_validation)
    assert same(weights(straight), weights(second))
    assert rows(tmp_path / "straight") == rows(tmp_path / "cut")


def test_the_checkpoints_that_are_kept_are_of_different_steps(tmp_path):
    """Each validation writes its step twice: before, and with its figures."""
    run, _ = run_in(tmp_path, total_steps=16, schedule=lambda _: 0.01)
    fit(run)
    folders = sorted(tmp_path.glob("last*"))
    assert {folder.name: load_state(folder)["step"] for folder in folders} == {"last": 16, "last-1": 12, "last-2": 8}


def test_a_bad_step_that_the_host_has_not_seen_yet_is_not_saved(tmp_path):
    """On a GPU, norms stay on the device until a row is due."""
    run, _ = run_in(tmp_path)
    run.checkpoints.control = Control(run.accelerator, Saving(ckpt_minutes=None, ckpt_every=2))  # type: ignore[attr-defined]
    run.step, run.report.norms = 2, {1: torch.tensor(1.0), 2: torch.tensor(math.nan)}
    with pytest.raises(UserError, match="the loss or the gradient of step 2 is not finite"):
        run.checkpoints.after_step(run)
    assert not (tmp_path / "last").exists()


def full_disk(*_args, **_options):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_costs_checkpoints_and_not_the_run(tmp_path, monkeypatch, capsys):
    run, _ = run_in(tmp_path)
    train(run)
    run.checkpoints.write_last(run, {}, owes_validation=False)
    with monkeypatch.context() as patch:
        patch.setattr(snapshot, "save_checkpoint", full_disk)
        train(run)
        run.checkpoints.write_last(run, {}, owes_validation=False)
    assert "warning     step 8 cannot be saved" in capsys.readouterr().out
    assert load_state(tmp_path / "last")["step"] == 4
    run.checkpoints.write_last(run, {}, owes_validation=False)
    assert load_state(tmp_path / "last")["step"] == 8


def test_a_disk_that_stays_full_ends_the_run_and_says_why(tmp_path, monkeypatch):
    run, _ = run_in(tmp_path)
    monkeypatch.setattr(snapshot, "save_checkpoint", full_disk)
    for _ in range(2):
        run.checkpoints.write_last(run, {}, owes_validation=False)
    with pytest.raises(UserError, match=r"No space left on device. It was attempt 3 in a row"):
        run.checkpoints.write_last(run, {}, owes_validation=False)


def test_a_run_that_a_signal_ends_does_not_claim_a_save_that_failed(tmp_path, monkeypatch):
    run, _ = run_in(tmp_path)
    run.checkpoints.control = stopping_control(2, signal.SIGTERM)  # type: ignore[attr-defined]
    monkeypatch.setattr(snapshot, "save_checkpoint", full_disk)
    with pytest.raises(UserError, match="stopped by a signal after step 2, which could not be saved"):
        fit(run)


def test_a_file_limit_in_the_middle_of_a_save_leaves_the_checkpoint_before(tmp_path):
    """A real limit of the system, which safetensors and torch meet in their own ways."""
    run, _ = run_in(tmp_path)
    train(run)
    run.checkpoints.write_last(run, {}, owes_validation=False)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
    try:
        run.step += 1
        run.checkpoints.write_last(run, {}, owes_validation=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert [path.name for path in tmp_path.glob("last*")] == ["last"]
    assert load_state(tmp_path / "last")["step"] == 4


def test_what_is_saved_has_the_mean_of_the_processes_statistics(tmp_path):
    """The mean of x and x + 2 is x + 1; weights and the counter of batches stay as they are."""
    run = make_run(ema=True)
    train(run)
    (own,) = gather_statistics(run)
    saved = average_statistics(run, [own, [value + 2 if value.is_floating_point() else value for value in own]])
    assert saved.keys() == {"val", "val_ema"}
    for name, network_ in run.networks.items():
        for key, value in network_.state_dict().items():
            assert torch.allclose(saved[name][key], value + 1 if "running" in key else value), key


@pytest.mark.parametrize(("processes", "found"), [(2, 7.0), (3, 5.0)])
def test_a_resumed_process_has_its_own_statistics_where_there_are_as_many(processes, found):
    """Otherwise it keeps those of the weights file."""
    run = make_run()
    (own,) = gather_statistics(run)
    gathered = [[torch.full_like(value, number) for value in own] for number in (6, 7)]
    for buffer in run.plain_model.buffers():
        buffer.fill_(5)
    accelerator = SimpleNamespace(num_processes=processes, process_index=1, unwrap_model=run.accelerator.unwrap_model)
    load_statistics(replace(run, accelerator=cast(Any, accelerator)), gathered)
    assert {buffer.unique().item() for buffer in run.plain_model.buffers()} == {found}
