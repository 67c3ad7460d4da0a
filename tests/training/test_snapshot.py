"""A checkpoint holds all that a run needs to go on as the same run, wherever in an epoch it was written."""

import errno
import math
import re
import resource
import shutil
import signal
import threading
from contextlib import closing

import pytest
import torch
from accelerate import Accelerator

from backbones.errors import UserError
from backbones.recipe import Saving
from backbones.training import checkpoint, snapshot
from backbones.training.checkpoint import load_state, read_description
from backbones.training.control import Control, Decision, StoppedError
from backbones.training.guard import NotFiniteError
from backbones.training.loop import fit
from backbones.training.run_files import MODEL
from tests.training.make_runs import FakeBatch, FakeBatches, same, train, weights
from tests.training.make_snapshots import rows, run_in, save

pytestmark = pytest.mark.usefixtures("fresh_accelerate")


@pytest.mark.parametrize("step", [1, 2, 3, 4, 5, 7])
def test_a_run_saved_after_any_step_goes_on_as_the_same_run_without_validating_first(tmp_path, step):
    straight, _ = run_in(tmp_path / "straight")
    fit(straight)

    class KilledError(Exception):
        pass

    def save_and_die(share: float) -> None:
        if share == step / 8:
            save(first)
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
    save(run, owes_validation=True)
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
    save(run)
    with monkeypatch.context() as patch:
        patch.setattr(snapshot, "save_checkpoint", full_disk)
        train(run)
        save(run)
    assert "warning     writing " in capsys.readouterr().out
    assert load_state(tmp_path / "last")["step"] == 4
    save(run)
    assert load_state(tmp_path / "last")["step"] == 8


def test_a_disk_that_stays_full_ends_the_run_and_says_why(tmp_path, monkeypatch):
    run, _ = run_in(tmp_path)
    monkeypatch.setattr(snapshot, "save_checkpoint", full_disk)
    for _ in range(2):
        save(run)
    with pytest.raises(UserError, match=r"No space left on device. It was attempt 3 in a row"):
        save(run)


def test_a_run_that_a_signal_ends_does_not_claim_a_save_that_failed(tmp_path, monkeypatch):
    run, _ = run_in(tmp_path)
    run.checkpoints.control = stopping_control(2, signal.SIGTERM)  # type: ignore[attr-defined]
    monkeypatch.setattr(snapshot, "save_checkpoint", full_disk)
    with pytest.raises(UserError, match=r"writing .*No space left on device. It was attempt 3 in a row"):
        fit(run)


def test_a_file_limit_in_the_middle_of_a_save_leaves_the_checkpoint_before(tmp_path):
    """A real limit of the system, which safetensors and torch meet in their own ways."""
    run, _ = run_in(tmp_path)
    train(run)
    save(run)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
    try:
        run.step += 1
        save(run)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert [path.name for path in tmp_path.glob("last*")] == ["last"]
    assert load_state(tmp_path / "last")["step"] == 4


# Rollback


class SomeBatches(FakeBatches):
    """Images of the steps in ``bad`` are NaN; from ``cut`` on, ``skipped`` steps' worth of images are left out."""

    def __init__(self, bad=(), *, cut: int = 0, skipped: int = 0) -> None:
        super().__init__()
        self.bad, self.cut, self.skipped = bad, cut, skipped

    def from_step(self, step: int):
        while True:
            number = step + (self.skipped if step >= self.cut else 0)
            with closing(FakeBatches().from_step(number)) as batches:
                images, labels = next(batches)
            yield FakeBatch(images * math.nan if number in self.bad else images, labels)
            step += 1


ROLLBACK = {"on_nan": "rollback"}


def test_a_rollback_goes_on_from_the_newest_checkpoint_with_the_images_after_the_bad_step(tmp_path, capsys):
    """Step 6 takes images 5, which are bad: back to step 4, and step 5 takes images 6."""
    expected, _ = run_in(tmp_path / "expected", train_batches=SomeBatches(cut=4, skipped=2))
    fit(expected)
    run, _ = run_in(tmp_path / "run", train_batches=SomeBatches([5]), options=ROLLBACK)
    fit(run)
    assert same(weights(expected), weights(run))
    assert same([*expected.ema.module.state_dict().values()], [*run.ema.module.state_dict().values()])  # type: ignore[union-attr]
    (event,) = [row for row in rows(tmp_path / "run") if "event" in row]
    assert (event["event"], event["step"], event["bad_step"], event["skipped"]) == ("rollback", 4, 6, 2)
    assert [row for row in rows(tmp_path / "run") if "event" not in row] == rows(tmp_path / "expected")
    assert (tmp_path / "run" / "not-finite-step-6-rank-0.txt").read_text().startswith("step5/0.jpg\n")
    assert "rollback 1 of at most 3" in capsys.readouterr().out


def test_a_run_resumed_after_a_rollback_is_the_same_run(tmp_path):
    straight, _ = run_in(tmp_path / "straight", train_batches=SomeBatches([5]), options=ROLLBACK)
    fit(straight)
    first, _ = run_in(tmp_path / "cut", train_batches=SomeBatches([5]), options=ROLLBACK)
    first.checkpoints.control = stopping_control(7, signal.SIGTERM)  # type: ignore[attr-defined]
    with pytest.raises(StoppedError):
        fit(first)
    second, _ = run_in(tmp_path / "cut", train_batches=SomeBatches([5]), options=ROLLBACK, resume=True)
    assert (second.step, second.skipped, second.checkpoints.rollbacks) == (7, 2, 1)  # type: ignore[attr-defined]
    fit(second)
    assert same(weights(straight), weights(second))


def test_the_fourth_rollback_is_the_end(tmp_path):
    run, _ = run_in(tmp_path, train_batches=SomeBatches(range(5, 99)), options=ROLLBACK)
    with pytest.raises(NotFiniteError, match=r"step 5 is not finite(.|\n)*It is the end after 3 rollbacks"):
        fit(run)
    assert sum("event" in row for row in rows(tmp_path)) == 3
    assert load_state(tmp_path / "last")["step"] == 4


def test_without_a_checkpoint_there_is_nothing_to_roll_back_to(tmp_path):
    run, _ = run_in(tmp_path, train_batches=SomeBatches([1]), options=ROLLBACK)
    with pytest.raises(NotFiniteError, match="There is no checkpoint yet to go back to"):
        fit(run)


def test_a_rollback_passes_over_a_damaged_checkpoint(tmp_path):
    def spoil(share: float) -> None:
        if share == 9 / 12 and not run.skipped:
            run.checkpoints.writer.settle()  # type: ignore[attr-defined]
            (tmp_path / "last" / MODEL).write_bytes(b"")

    batches = SomeBatches([9])
    fields = {"total_steps": 12, "schedule": lambda _: 0.01}
    run, _ = run_in(tmp_path, train_batches=batches, options=ROLLBACK, on_step=spoil, **fields)
    fit(run)
    assert run.skipped == 6  # back from step 10 to step 4
    assert (tmp_path / "damaged-last").is_dir()
    kept = {path.name: load_state(path)["step"] for path in tmp_path.glob("last*")}
    assert kept == {"last": 12, "last-1": 8, "last-2": 4}


def test_training_goes_on_while_a_checkpoint_is_written(tmp_path, monkeypatch):
    """The writer waits for step 3; what it writes is step 2."""
    reached = threading.Event()

    def save_late(*args, **options):
        assert reached.wait(timeout=60)
        return checkpoint.save_checkpoint(*args, **options)

    monkeypatch.setattr(snapshot, "save_checkpoint", save_late)

    def at(share: float) -> None:
        if share == 2 / 8:
            expected.extend(weights(run))
            run.checkpoints.write_last(run, {}, owes_validation=False)
        if share == 3 / 8:
            reached.set()

    expected: list[torch.Tensor] = []
    run, _ = run_in(tmp_path, on_step=at, options={"saving": Saving(checkpoint_hist=9)})
    fit(run)
    network = run.plain_model
    checkpoint.load_weights(network, tmp_path / "last-2" / MODEL)
    assert load_state(tmp_path / "last-2")["step"] == 2
    assert same(expected, weights(run))


def test_the_free_space_is_looked_at_before_a_save(tmp_path, monkeypatch, capsys):
    run, _ = run_in(tmp_path)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1_000_000))
    save(run)
    assert re.search(
        r"failed: .*1 MB are needed, and the disk has 1 MB left.*the next save tries", capsys.readouterr().out
    )
    assert not (tmp_path / "last").exists()


def test_a_last_save_that_fails_once_is_tried_again(tmp_path, monkeypatch):
    failures = iter([full_disk])

    def save_at_the_second_attempt(*args, **options):
        return next(failures, checkpoint.save_checkpoint)(*args, **options)

    run, _ = run_in(tmp_path)
    train(run)
    monkeypatch.setattr(snapshot, "save_checkpoint", save_at_the_second_attempt)
    run.checkpoints.write_last(run, {}, owes_validation=False)
    run.checkpoints.finish()
    assert load_state(tmp_path / "last")["step"] == 4


@pytest.mark.parametrize(("free", "says"), [(1_000_000, "refused"), (1_100_000, "warned"), (10**9, "")])
def test_the_free_space_is_looked_at_before_training(tmp_path, monkeypatch, capsys, free, says):
    """Checkpoints of this network have 7 kB; a megabyte is kept free beside two of them."""
    run, _ = run_in(tmp_path, options={"saving": Saving(checkpoint_hist=1000)})
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=free))
    if says == "refused":
        with pytest.raises(UserError, match=r"a checkpoint has about 0 MB, and the disk .* has 1 MB left. Free some"):
            run.checkpoints.require_space(run)  # type: ignore[attr-defined]
    else:
        run.checkpoints.require_space(run)  # type: ignore[attr-defined]
    assert ("1002 would not fit" in capsys.readouterr().out) == (says == "warned")
