"""The printed job script on a real SLURM with two nodes: it saves, is requeued, and ends as the undisturbed run."""

import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from backbones.commands.launch import main as launch
from tests.hosts.namespaces import wait_until, why_not
from tests.hosts.runs import fingerprint, rows, state
from tests.hosts.slurm import Slurm, slurm
from tests.tiny_runs import TINY

pytestmark = [pytest.mark.hosts, pytest.mark.skipif(why_not() is not None, reason=str(why_not()))]

ROOT = Path(__file__).parents[2]
SECONDS = 400
"""Limit for what takes a quarter of that on a free machine."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[Slurm]:
    """A SLURM with two nodes."""
    with slurm(tmp_path_factory.mktemp("slurm")) as running:
        yield running


class Job:
    """A job that the printed script describes."""

    def __init__(self, cluster: Slurm, data: Path, name: str, *more: str) -> None:
        self.cluster = cluster
        self.run = cluster.shared / name
        script = cluster.shared / f"{name}.sbatch"
        size = ["slurm", "--nodes", "2", "--gpus", "0", "--python", sys.executable, "--name", name]
        length = ["--epochs", "12", "--val-interval", "4", "--log.interval", "1", "--ckpt-every", "5", "--model-ema"]
        training = [*TINY, *length, "--timeout", "10", "--data-dir", str(data), "--output", str(self.run), *more]
        launch([*size, "--output", str(script), "--", *training])
        self.log = cluster.shared / f"{name}.log"
        options = ["--chdir", ROOT, "--output", self.log, "--export", "ALL,OMP_NUM_THREADS=1"]
        self.number = cluster.ask("sbatch", "--parsable", *options, script)

    def await_step(self, step: int) -> None:
        """Wait until the run has made a step."""
        wait_until(lambda: any(row["step"] >= step for row in rows(self.run)), SECONDS, f"step {step}")

    def await_state(self, *states: str) -> str:
        """Wait until SLURM has the job in one of these states, and return it."""
        wait_until(lambda: self.cluster.state(self.number) in states, SECONDS, f"{states} ({self.number})")
        return self.cluster.state(self.number)

    def is_requeued(self) -> bool:
        """Tell whether SLURM has ended the job to start it again; it may be running again already."""
        return self.says("is requeued: |DUE TO NODE FAILURE")

    def says(self, pattern: str) -> bool:
        """Tell whether the log has such a line."""
        return self.log.exists() and re.search(pattern, self.log.read_text(), re.MULTILINE) is not None


@pytest.fixture(scope="module")
def data(cluster, image_folder) -> Path:
    """The images, where jobs see them."""
    return Path(shutil.copytree(image_folder, cluster.shared / "images"))


@pytest.fixture(scope="module")
def undisturbed(cluster, data) -> Path:
    """The run folder of a job that nobody disturbed."""
    job = Job(cluster, data, "undisturbed")
    assert job.await_state("COMPLETED", "FAILED", "CANCELLED") == "COMPLETED", job.log.read_text()
    assert state(job.run) == "finished"
    return job.run


def test_both_nodes_take_part_in_the_run(undisturbed):
    log = undisturbed.with_suffix(".log").read_text()
    assert re.search(r"^hosts:\n(n1\nn2|n2\nn1)$", log, re.MULTILINE)
    assert "16 images per step = 2 processes x 8" in log
    assert "srun ended with 0, the run is: finished" in log


def test_the_signal_before_the_time_limit_saves_and_requeues_to_the_same_weights(cluster, data, undisturbed):
    job = Job(cluster, data, "signal")
    job.await_step(7)
    cluster.ask("scancel", "--signal=USR1", "--batch", job.number)
    wait_until(job.is_requeued, 60, "requeue")
    assert state(job.run) == "preempted"
    assert job.says("stopped by SIGUSR1 after step")
    assert job.says(f"^job {job.number} is requeued: it was told to stop, and is saved$")
    assert job.await_state("COMPLETED", "FAILED", "CANCELLED") == "COMPLETED", job.log.read_text()
    assert job.says(f"^job {job.number}, start 0: ")
    assert job.says(f"^job {job.number}, start 1: ")
    assert fingerprint(job.run) == fingerprint(undisturbed)


@pytest.mark.parametrize(
    ("seconds", "reason"),
    [(30, "DUE TO NODE FAILURE"), (300, "is requeued: a host is gone")],
    ids=["SLURM sees it first", "the job sees it first"],
)
def test_a_lost_node_ends_the_job_which_goes_on_when_there_is_one_again(cluster, data, undisturbed, seconds, reason):
    cluster.set_timeout(seconds)
    job = Job(cluster, data, f"lost-{seconds}")
    job.await_step(7)
    cluster.lose_node(cluster.nodes[1])
    wait_until(job.is_requeued, SECONDS, "requeue")
    assert job.says("process 0 on n1: after step"), job.log.read_text()
    assert job.says(reason)
    cluster.start_node(cluster.nodes[1])
    assert job.await_state("COMPLETED", "FAILED", "CANCELLED") == "COMPLETED", job.log.read_text()
    assert fingerprint(job.run) == fingerprint(undisturbed)


def test_a_job_that_is_cancelled_saves_and_is_not_requeued(cluster, data):
    job = Job(cluster, data, "cancelled")
    job.await_step(7)
    cluster.ask("scancel", job.number)
    assert job.await_state("CANCELLED", "PENDING") == "CANCELLED"
    wait_until(cluster.is_idle, 60, "free nodes")
    assert cluster.state(job.number) == "CANCELLED"
    assert state(job.run) == "preempted"
