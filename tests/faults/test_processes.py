"""Rows 10, 17 to 19, 23, 24, 26 and 27: processes that are stopped or killed go on as the same run."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from safetensors.torch import load_file

import eval as evaluation_script
from backbones.training.checkpoint import load_state
from tests import accelerate_state

ROOT = Path(__file__).parents[2]
TINY = ["--model", "test_resnet", "--img-size", "32", "--batch-size", "16", "--epochs", "10", "--workers", "1"]
TINY += ["--bn-momentum", "0.1", "--device", "cpu", "--log.interval", "2", "--ckpt-every", "3", "--model-ema"]
LAUNCHERS = {1: ["--config_file", "configs/accelerate/cpu1.yaml"], 2: ["--config_file", "configs/accelerate/cpu2.yaml"]}


def start(processes: int, data: Path, output: Path, *more: str) -> subprocess.Popen[str]:
    words = ["train_imagenet.py", *TINY, "--data-dir", str(data), "--output", str(output), "--resume", "auto", *more]
    command = [sys.executable, "-m", "accelerate.commands.launch", *LAUNCHERS[processes], *words]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=pipe, stderr=subprocess.STDOUT, text=True)


def wait_for_step(run: Path, step: int) -> None:
    """Wait until a row of a step from ``step`` on is logged."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        rows = (run / "metrics.jsonl").read_text().splitlines() if (run / "metrics.jsonl").exists() else []
        if len(rows) > 1 and json.loads(rows[-2])["step"] >= step:
            return
        time.sleep(0.05)
    pytest.fail(f"step {step} was not reached")


def fingerprint(run: Path) -> dict[str, str]:
    """Return the hashes of weights and average."""

    def digest(name: str) -> str:
        tensors = sorted(load_file(run / "last" / name).items())
        return hashlib.sha256(b"".join(tensor.numpy().tobytes() for _, tensor in tensors)).hexdigest()

    return {name: digest(name) for name in ("model.safetensors", "ema.safetensors")}


def workers_of(launcher: subprocess.Popen[str]) -> list[psutil.Process]:
    return psutil.Process(launcher.pid).children(recursive=True)


def status(run: Path) -> dict:
    return json.loads((run / "status.json").read_text())


@pytest.fixture(scope="module", params=[1, pytest.param(2, marks=pytest.mark.slow)])
def straight(request, sound, tmp_path_factory) -> tuple[int, Path]:
    """Return the number of processes and the run that nobody disturbs."""
    run = tmp_path_factory.mktemp("straight") / "run"
    launcher = start(request.param, sound, run)
    output, _ = launcher.communicate(timeout=300)
    assert launcher.returncode == 0, output
    assert status(run)["state"] == "finished"
    return request.param, run


@pytest.mark.fault(17)
@pytest.mark.fault(19)
@pytest.mark.fault(23)
@pytest.mark.fault(24)
def test_a_run_stopped_once_and_killed_once_is_the_run_that_nobody_disturbed(straight, sound, tmp_path):
    """SIGTERM to the launcher, later kill -9 of everything, within epochs; each time --resume auto."""
    processes, undisturbed = straight
    run = tmp_path / "run"
    launcher = start(processes, sound, run)
    wait_for_step(run, 9)
    workers, asked = workers_of(launcher), time.monotonic()
    launcher.send_signal(signal.SIGTERM)
    launcher.communicate(timeout=60)
    _, alive = psutil.wait_procs(workers, timeout=25)
    assert not alive
    assert time.monotonic() - asked < 25
    assert launcher.returncode != 0
    assert status(run)["state"] == "preempted"
    assert status(run)["step"] >= 9

    launcher = start(processes, sound, run)
    wait_for_step(run, 21)
    for process in [*workers_of(launcher), psutil.Process(launcher.pid)]:
        process.kill()
    launcher.communicate(timeout=60)
    assert status(run)["state"] == "running"

    output, _ = start(processes, sound, run).communicate(timeout=300)
    assert status(run)["state"] == "finished", output
    assert fingerprint(run) == fingerprint(undisturbed)
    assert logged(run) == logged(undisturbed)


def logged(run: Path) -> list[dict]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if not key.startswith("perf/")} for row in rows]


@pytest.mark.fault(10)
@pytest.mark.slow
def test_two_processes_count_every_validation_image_once(straight, sound):
    """21 images on 2 processes; one process finds the same figures for the same checkpoint."""
    processes, run = straight
    if processes == 1:
        pytest.skip("about two processes")
    accelerate_state.reset()
    alone = evaluation_script.main(["--ckpt", str(run), "--data-dir", str(sound)])
    (row,) = [row for row in logged(run)[-1:] if "val_ema/top1" in row]
    assert (alone.n, alone.top1) == (21, pytest.approx(row["val_ema/top1"], abs=1e-9))


@pytest.mark.fault(18)
@pytest.mark.slow
@pytest.mark.parametrize(("number", "status_of_the_script"), [(signal.SIGINT, 130), (signal.SIGUSR1, 75)])
def test_a_signal_to_the_process_itself_saves_and_has_its_exit_status(sound, tmp_path, number, status_of_the_script):
    run = tmp_path / "run"
    words = ["train_imagenet.py", *TINY, "--data-dir", str(sound), "--output", str(run), "--epochs", "100"]
    pipe = subprocess.PIPE
    process = subprocess.Popen([sys.executable, *words], cwd=ROOT, stdout=pipe, stderr=subprocess.STDOUT, text=True)
    wait_for_step(run, 5)
    asked = time.monotonic()
    process.send_signal(number)
    process.communicate(timeout=60)
    assert time.monotonic() - asked < 25
    assert process.returncode == status_of_the_script
    assert (status(run)["state"], load_state(run / "last")["step"]) == ("preempted", status(run)["step"])


@pytest.mark.fault(19)
@pytest.mark.slow
def test_a_launcher_killed_with_minus_nine_leaves_no_orphan(sound, tmp_path):
    run = tmp_path / "run"
    launcher = start(1, sound, run)
    wait_for_step(run, 5)
    workers = workers_of(launcher)
    launcher.kill()
    launcher.communicate(timeout=60)
    _, alive = psutil.wait_procs(workers, timeout=25)
    assert not alive
    assert status(run)["state"] == "preempted"


@pytest.mark.slow
@pytest.mark.parametrize(
    "number",
    [
        pytest.param(signal.SIGSTOP, marks=pytest.mark.fault(27)),
        pytest.param(signal.SIGKILL, marks=pytest.mark.fault(26)),
    ],
)
def test_a_frozen_or_dead_process_ends_the_job_in_time_and_is_named(sound, tmp_path, number):
    run = tmp_path / "run"
    launcher = start(2, sound, run, "--timeout", "5", "--epochs", "100")
    wait_for_step(run, 5)
    workers = [worker for worker in workers_of(launcher) if "train_imagenet.py" in worker.cmdline()]
    asked = time.monotonic()
    workers[-1].send_signal(number)
    output, _ = launcher.communicate(timeout=120)
    _, alive = psutil.wait_procs(workers, timeout=10)
    assert not alive
    assert time.monotonic() - asked < (45 if number == signal.SIGSTOP else 15)
    assert launcher.returncode != 0
    if number == signal.SIGSTOP:
        assert re.search(
            r"process 0 on \S+: after step \d+, in step \d+, another process is gone or did not answer within 5 s",
            output,
        )
