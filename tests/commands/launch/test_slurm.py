"""The job script asks SLURM for the right things, and requeues the job exactly where that is right.

The script runs in a real bash. ``srun`` and ``scontrol`` are stand-ins that write down their words; tests/hosts has the
real ones.
"""

import itertools
import os
import re
import signal
import stat
import subprocess
import time
from pathlib import Path

import pytest

from backbones.commands.launch.slurm import write_job
from backbones.training.status import write_status

SRUN = """#!/bin/bash
if [ "${@: -1}" = hostname ]; then
    [ ! -e gone ]
    exit
fi
while [ "$1" != bash ]; do shift; done
SLURM_NODEID=1 "$@" &
node=$!
trap 'echo srun got USR1; kill -USR1 $node' USR1
wait $node
wait $node
"""
SCONTROL = """#!/bin/bash
echo "$@" >>scontrol.log
if [ "$1" = show ]; then
    printf 'first\\nsecond\\n'
elif [ -e refused ]; then
    exit 1
fi
"""
PYTHON = """#!/bin/bash
printf '%s\\n' "$@" >words.log
. ./training
"""


@pytest.fixture
def cluster(tmp_path, job):
    """The function that runs a job script whose training is a line of shell: cluster(training) -> exit status."""
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL), ("python", PYTHON)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(stat.S_IRWXU)
    (tmp_path / "run").mkdir()
    text = write_job(*job("slurm", "--output", "run", "--model-args", "{a: 'b c'}", python=str(tmp_path / "python")))
    (tmp_path / "job").write_text(text)

    def start(training: str) -> subprocess.Popen[str]:
        (tmp_path / "training").write_text(training)
        path = f"{tmp_path}:{os.environ['PATH']}"
        slurm = {"SLURM_JOB_ID": "123", "SLURM_JOB_NODELIST": "n[1-2]", "SLURM_JOB_NUM_NODES": "2"}
        environment = {"PATH": path, "SLURM_CPUS_PER_TASK": "4"} | slurm
        return subprocess.Popen(["bash", "job"], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True)

    return start


def status(state: str) -> str:
    """Return a line of shell that writes what the trainer writes."""
    return f"""echo '{{"state": "{state}", "step": 1, "time": 1.5}}' >run/status.json;"""


def is_requeued(tmp_path: Path) -> bool:
    return "requeue 123" in (tmp_path / "scontrol.log").read_text().splitlines()


@pytest.mark.parametrize(
    ("training", "code", "requeued"),
    [
        (status("finished") + "exit 0", 0, False),
        (status("preempted") + "exit 1", 0, True),
        (status("failed") + "exit 1", 1, False),
        ("exit 3", 3, False),
        (status("failed") + "touch gone; exit 1", 0, True),
        (status("running") + "touch gone; exit 1", 0, True),
        ("touch gone; exit 1", 0, True),
    ],
)
def test_a_job_is_requeued_where_it_was_told_to_stop_or_a_host_is_gone(cluster, tmp_path, training, code, requeued):
    output, _ = (process := cluster(training)).communicate(timeout=20)
    assert (process.returncode, is_requeued(tmp_path)) == (code, requeued), output


def test_the_state_of_an_earlier_start_is_not_taken_for_that_of_this_one(cluster, tmp_path):
    """Else a job that fails at once, since its data are gone, would be requeued for ever."""
    write_status(tmp_path / "run", "preempted", 7)
    process = cluster("exit 1")
    process.communicate(timeout=20)
    assert (process.returncode, is_requeued(tmp_path)) == (1, False)


def test_a_host_that_never_answered_is_no_reason_to_requeue(cluster, tmp_path):
    (tmp_path / "gone").touch()
    process = cluster("exit 1")
    process.communicate(timeout=20)
    assert (process.returncode, is_requeued(tmp_path)) == (1, False)


def test_a_job_that_may_not_be_requeued_ends_with_75(cluster, tmp_path):
    (tmp_path / "refused").touch()
    process = cluster(status("preempted") + "exit 1")
    process.communicate(timeout=20)
    assert process.returncode == 75


@pytest.mark.parametrize(
    ("states", "requeued"),
    [(["preempted"], True), ([], True), (["running"], True), (["failed"], False)],
    ids=["saved", "too early", "killed while it saves", "failed"],
)
def test_the_signal_before_the_end_reaches_the_training_and_the_job_is_requeued(cluster, tmp_path, states, requeued):
    answer = "sleep 0.5; " + "".join(map(status, states))  # a save takes its time
    process = cluster(f"answer() {{ {answer} exit 1; }}; trap answer USR1; touch up; sleep 20 >/dev/null & wait")
    wait_for(tmp_path / "up")
    process.send_signal(signal.SIGUSR1)
    output, _ = process.communicate(timeout=20)
    assert "srun got USR1" in output
    assert is_requeued(tmp_path) == requeued, output


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_each_host_starts_one_torchrun_with_its_number_and_the_address_of_the_first(cluster, tmp_path):
    cluster("exit 0").communicate(timeout=20)
    words = (tmp_path / "words.log").read_text().splitlines()
    options = dict(itertools.pairwise(words))
    assert words[:2] == ["-m", "torch.distributed.run"]
    assert (options["--node-rank"], options["--nnodes"], options["--nproc-per-node"]) == ("1", "2", "8")
    assert (options["--master-addr"], options["--master-port"]) == ("first", "20123")
    assert options["--rdzv-conf"] == "timeout=600"
    training = words[words.index("train_imagenet.py") :]
    assert training[-8:-4] == ["--output", "run", "--model-args", "{a: 'b c'}"]
    assert training[-4:] == ["--resume", "auto", "--precision", "bf16"]


def directives(text: str) -> dict[str, str]:
    return {name: value for name, _, value in re.findall(r"^#SBATCH --([\w-]+)(=(.*))?$", text, re.MULTILINE)}


def test_slurm_is_asked_for_hosts_a_signal_and_a_requeue(job):
    text = write_job(*job("slurm", time="1-00:00:00", nodes=4))
    assert directives(text) == {
        "job-name": "backbones",
        "nodes": "4",
        "ntasks-per-node": "1",
        "cpus-per-task": "40",
        "gpus-per-node": "8",
        "time": "1-00:00:00",
        "signal": "B:USR1@120",
        "requeue": "",
        "open-mode": "append",
        "output": "%x-%j.out",
    }
    assert text.startswith("#!/bin/bash\n")


def test_a_job_on_cpus_asks_for_no_gpu_and_no_time_limit(job):
    asked = directives(write_job(*job("slurm", gpus=0)))
    assert "gpus-per-node" not in asked
    assert "time" not in asked


def test_directives_come_before_the_first_command(job):
    """SLURM ignores those that follow."""
    lines = write_job(*job("slurm", "--model", "resnet50")).splitlines()
    first = next(number for number, line in enumerate(lines) if line and not line.startswith("#"))
    assert not any(line.startswith("#SBATCH") for line in lines[first:])
