"""Rows 12 to 16, 20 to 22, 25, 36 and 38: checkpoints that are damaged, foreign, not finite or cannot be written."""

import json
import math
import resource
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from backbones.assembly.checkpoint import restore_model
from backbones.errors import UserError
from backbones.files import lock
from backbones.training import loop
from backbones.training.checkpoint import find_resumable, load_state
from tests import accelerate_state
from tests.faults.small_runs import rows, train
from tests.training.test_checkpoint import flip_a_bit
from train_imagenet import main

pytestmark = pytest.mark.usefixtures("fresh_accelerate")
PROBE = Path(__file__).parents[1] / "probes" / "killed_saves.py"


@pytest.fixture(scope="session")
def trained(sound: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two epochs of four steps with an average and checkpoints of steps 3, 6 and 8; not to be changed."""
    run = tmp_path_factory.mktemp("trained") / "run"
    train(sound, "--epochs", "2", "--ckpt-every", "3", "--model-ema", output=run)
    return run


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of that run, which lacks its last step, in the folder of `train`."""
    copy = Path(shutil.copytree(trained, tmp_path / "run"))
    assert [load_state(copy / name)["step"] for name in ("last", "last-1", "last-2")] == [8, 6, 4]
    return copy


def resume(run: Path, *words: str, path: Path | None = None) -> None:
    accelerate_state.reset()
    main(["--resume", str(path or run), "--output", str(run), "--epochs", "3", *words])


def tensors(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "last" / "ema.safetensors") | {
        f"model.{name}": value for name, value in load_file(run / "last" / "model.safetensors").items()
    }


def same(a: Path, b: Path) -> bool:
    first, second = tensors(a), tensors(b)
    return first.keys() == second.keys() and all(torch.equal(value, second[name]) for name, value in first.items())


DAMAGES = {
    12: lambda file: file.write_bytes(file.read_bytes()[:-1]),
    13: lambda file: file.write_bytes(b""),
    14: flip_a_bit,
}


@pytest.mark.parametrize("name", ["model.safetensors", "state.pt", "ema.safetensors"])
@pytest.mark.parametrize("row", [pytest.param(row, marks=pytest.mark.fault(row)) for row in DAMAGES])
def test_damage_is_refused_by_path_and_passed_over_by_auto(run, row, name, capsys):
    DAMAGES[row](run / "last" / name)
    with pytest.raises(UserError, match=f"last is damaged: {name}"):
        resume(run)
    resume(run, path=Path("auto"))
    assert f"last is damaged: {name}" in capsys.readouterr().out
    assert load_state(run / "last")["step"] == 12
    assert (run / "damaged-last").is_dir()


@pytest.mark.fault(12)
def test_the_run_that_goes_on_from_an_earlier_checkpoint_is_the_same_run(run, trained):
    flip_a_bit(run / "last" / "model.safetensors")
    resume(run, "--epochs", "2", path=Path("auto"))
    assert same(run, trained)


@pytest.mark.fault(15)
@pytest.mark.parametrize("name", ["ema.safetensors", "state.pt", "model.safetensors", "manifest.json"])
def test_a_lost_file_is_named(run, name):
    (run / "last" / name).unlink()
    with pytest.raises(UserError, match=name):
        resume(run, path=run / "last")


@pytest.mark.fault(15)
def test_another_network_is_refused(run):
    with pytest.raises(UserError, match=r"model='test_resnet', not 'test_efficientnet'"):
        resume(run, "--model", "test_efficientnet")


@contextmanager
def bad_gradient(monkeypatch: pytest.MonkeyPatch, step: int):
    """Put one NaN into the gradient of a step; its loss stays finite."""
    measure, calls = loop.measure_gradient, [0]

    def spoil(accelerator, parameters, clip):
        calls[0] += 1
        parameters = list(parameters)
        if calls[0] == step:
            parameters[-1].grad[0] = math.nan
        return measure(accelerator, parameters, clip)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "measure_gradient", spoil)
        yield


@pytest.mark.fault(16)
@pytest.mark.parametrize("step", [1, 3, 4])
def test_a_gradient_that_is_not_finite_is_no_step_and_names_its_images(data, monkeypatch, step):
    """Also in the first step, and in the very last one."""
    with bad_gradient(monkeypatch, step), pytest.raises(UserError, match=f"gradient of step {step} is not finite"):
        train(data)
    names = (data.parent / "run" / f"not-finite-step-{step}-rank-0.txt").read_text().splitlines()
    assert len(names) == 16
    assert all(Path(name).is_file() for name in names)
    for file in (data.parent / "run").rglob("*.safetensors"):
        assert all(value.isfinite().all() for value in load_file(file).values()), file


@pytest.mark.fault(16)
def test_a_rate_that_is_far_too_large_ends_the_run(data):
    with pytest.raises(UserError, match=r"not finite|is nan|is inf"):
        train(data, "--lr", "1e30", "--burn-in", "0", "--epochs", "3")
    assert not (data.parent / "run" / "best").exists()


@pytest.mark.fault(16)
def test_a_rollback_goes_past_the_bad_step(data, monkeypatch):
    with bad_gradient(monkeypatch, 6):
        assert train(data, "--epochs", "2", "--on-nan", "rollback").n == 21
    (event,) = [row for row in rows(data) if "event" in row]
    assert (event["event"], event["bad_step"], event["step"]) == ("rollback", 6, 4)


@pytest.mark.fault(20)
@pytest.mark.slow
def test_fifteen_kills_while_saving_leave_a_checkpoint_each_time(tmp_path):
    done = subprocess.run([sys.executable, PROBE, tmp_path, "15"], capture_output=True, text=True, check=True)
    outcomes = json.loads(done.stdout)
    assert len(outcomes) == 15
    assert all(found in (complete, complete + 1) for complete, found in outcomes)


@pytest.mark.fault(21)
def test_a_limit_of_the_file_size_is_warned_of_keeps_the_old_and_ends_the_run_in_the_end(run, capsys):
    """RLIMIT_FSIZE, as on a full disk: the checkpoint before stays, nothing half-written is left."""
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(UserError, match=r"writing \S+ failed: .*attempt 3 in a row"):
            resume(run)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert "the checkpoints before are kept, and the next save tries again" in capsys.readouterr().out
    assert load_state(run / "last")["step"] == 8
    assert not list(run.glob("*.partial"))
    assert json.loads((run / "status.json").read_text())["state"] == "failed"


@pytest.mark.fault(22)
def test_a_second_run_in_the_same_folder_is_refused_at_once_and_the_owner_named(run):
    with lock(run, "is owned by this test"):
        asked = time.monotonic()
        with pytest.raises(UserError, match=r"belongs to a run that is still going \(process \d+ on \S+\)"):
            resume(run)
        assert time.monotonic() - asked < 30  # with a loaded machine
    assert load_state(run / "last")["step"] == 8


@pytest.mark.fault(25)
def test_what_must_stay_is_refused_and_what_may_change_is_logged(run, sound, data):
    with pytest.raises(UserError, match="batch_size=16, not 32"):
        resume(run, "--batch-size", "32")
    with pytest.raises(UserError, match="seed=0, not 7"):
        resume(run, "--seed", "7")
    (data / "train" / "bee").rename(data / "train" / "bug")
    (data / "val" / "bee").rename(data / "val" / "bug")
    with pytest.raises(UserError, match=r"the training images .* are not those of the checkpoint"):
        resume(run, "--data-dir", str(data))
    resume(run, "--lr", "0.05")
    (event,) = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines() if "event" in line]
    assert "lr: 0.1 -> 0.05" in event["text"]


class Payload:
    """A pickle that would write a file when it is read."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self):
        return Path.touch, (self.file,)


@pytest.mark.fault(36)
def test_a_pickle_that_would_run_code_is_refused_unrun(run, tmp_path):
    torch.save({"step": Payload(tmp_path / "ran")}, run / "last" / "state.pt")
    (run / "last" / "manifest.json").unlink()
    with pytest.raises(UserError, match="cannot be read: Weights only load failed"):
        resume(run)
    assert not (tmp_path / "ran").exists()


@pytest.mark.fault(38)
@pytest.mark.parametrize("place", ["optimizer", "batch_norm"])
def test_a_view_of_more_numbers_than_the_file_has_is_refused_by_shape(run, place):
    """2^34 elements from one number; the sums of the manifest fit."""
    huge, state = torch.zeros(1).as_strided((2**34,), (0,)), load_state(run / "last")
    if place == "optimizer":
        state["optimizer"]["state"][0]["momentum_buffer"] = huge
    else:
        state["batch_norm"] = [[huge]]
    torch.save(state, run / "last" / "state.pt")
    (run / "last" / "manifest.json").unlink()
    with pytest.raises(UserError, match=r"claims the shape \[17179869184\] but holds 4 bytes"):
        resume(run)


@pytest.mark.fault(38)
def test_weights_of_another_shape_are_refused(run, tmp_path):
    weights = load_file(run / "last" / "model.safetensors")
    name = next(iter(weights))
    weights[name] = torch.zeros(1, 2, 3)
    file = tmp_path / "x.safetensors"
    save_file(weights, file)
    with pytest.raises(UserError, match=r"another architecture than test_resnet: .* tensors of another shape"):
        restore_model(str(file), model="test_resnet")


@pytest.mark.fault(20)
def test_a_half_written_checkpoint_is_no_checkpoint(run):
    shutil.copytree(run / "last", run / "last.0123abcd.partial")
    (run / "last.0123abcd.partial" / "manifest.json").unlink()
    assert find_resumable(run)[0] == run / "last"
    resume(run)
    assert not list(run.glob("*.partial"))


@pytest.mark.fault(31)
def test_a_folder_that_cannot_be_written_is_refused_before_the_network_is_built(sound, monkeypatch):
    monkeypatch.setattr(
        "backbones.assembly.training.build_model", lambda *_: pytest.fail("wrong silently: the network was built")
    )
    with pytest.raises(UserError, match="--output /proc/run: /proc cannot be written"):
        train(sound, output=Path("/proc/run"))
