"""The task names what SkyPilot needs, and its script tells a preemption from a failure in a real bash."""

import itertools
import stat
import subprocess

import pytest
import yaml

from backbones.commands.launch.skypilot import task, write_task
from backbones.training.status import write_status

KEYS = {"name", "num_nodes", "resources", "workdir", "volumes", "file_mounts", "setup", "run"}
"""Keys of a task that we use, as in SkyPilot's reference of its YAML."""


def test_the_task_asks_for_spot_gpus_and_recovery(job):
    content = yaml.safe_load(write_task(*job("skypilot")))
    recovery = {"max_restarts_on_errors": 3, "recover_on_exit_codes": [75]}
    assert content["num_nodes"] == 2
    assert content["resources"] == {
        "accelerators": "H100:8",
        "cpus": "40+",
        "use_spot": True,
        "job_recovery": recovery,
    }
    assert content.keys() <= KEYS


def test_a_volume_and_a_bucket_are_mounted_each_in_its_way(job):
    assert task(*job("skypilot"))["volumes"] == {"/storage": "volume"}
    bucket = task(*job("skypilot", storage="s3://bucket", mount="/storage"))
    assert bucket["file_mounts"] == {"/storage": {"source": "s3://bucket", "mode": "MOUNT_CACHED"}}
    assert "volumes" not in bucket


def test_a_task_on_cpus_names_no_accelerator(job):
    assert "accelerators" not in task(*job("skypilot", gpus=0, accelerator=None, spot=False))["resources"]


@pytest.fixture
def run_script(tmp_path, job):
    """The function that runs the script of the second host with a training that is a line of shell."""
    (tmp_path / "run").mkdir()
    python = tmp_path / "python"
    python.write_text("""#!/bin/bash\nprintf '%s\\n' "$@" >words.log\n. ./training\n""")
    python.chmod(stat.S_IRWXU)
    script = task(*job("skypilot", "--output", "run", python=str(python)))["run"]
    hosts = {"SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2", "SKYPILOT_NUM_NODES": "2", "SKYPILOT_NODE_RANK": "1"}

    def run(training: str, *options: str) -> int:
        (tmp_path / "training").write_text(training)
        path = {"PATH": "/usr/bin:/bin"}
        return subprocess.run(["bash", *options, "-c", script], cwd=tmp_path, env=path | hosts, check=False).returncode

    return run


@pytest.mark.parametrize("options", [(), ("-e",)])
@pytest.mark.parametrize(
    ("state", "code", "expected"), [("preempted", 1, 75), ("failed", 1, 1), ("finished", 0, 0), (None, 3, 3)]
)
def test_a_preempted_run_ends_with_the_status_that_is_always_recovered(run_script, options, state, code, expected):
    line = f"""echo '{{"state": "{state}", "step": 1}}' >run/status.json;""" if state else ""
    assert run_script(f"{line} exit {code}", *options) == expected


def test_the_state_of_an_earlier_start_is_not_taken_for_that_of_this_one(run_script, tmp_path):
    write_status(tmp_path / "run", "preempted", 7)
    assert run_script("exit 1") == 1


def test_torchrun_meets_at_the_first_host(run_script, tmp_path):
    run_script("exit 0")
    words = (tmp_path / "words.log").read_text().splitlines()
    options = dict(itertools.pairwise(words))
    assert (options["--master-addr"], options["--node-rank"], options["--nnodes"]) == ("10.0.0.1", "1", "2")
    assert options["--nproc-per-node"] == "8"
    assert "train_imagenet.py" in words
