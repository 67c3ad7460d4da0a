"""The size of a job and the options of its engine are checked before anything is printed."""

import pytest

from backbones.commands.launch.request import Request, limit_seconds, require_fitting
from backbones.errors import UserError

SLURM = {"engine": "slurm", "nodes": 2, "gpus": 8}
KUBEFLOW = {"engine": "kubeflow", "nodes": 2, "gpus": 8, "image": "image", "storage": "claim"}
SKYPILOT = {"engine": "skypilot", "nodes": 2, "gpus": 8, "accelerator": "H100", "storage": "volume"}


@pytest.mark.parametrize("options", [SLURM, KUBEFLOW, SKYPILOT])
def test_each_engine_has_its_options(options):
    assert Request(**options).processes == 16


def test_without_gpus_each_host_has_one_process():
    request = Request("slurm", nodes=3, gpus=0)
    assert (request.processes_per_node, request.processes) == (1, 3)
    assert Request(**SKYPILOT | {"gpus": 0, "accelerator": None}).processes == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (SLURM | {"nodes": 0}, "--nodes=0 must be positive"),
        (SLURM | {"gpus": -1}, "--gpus=-1 must not be negative"),
        (SLURM | {"cpus": 0}, "--cpus=0 must be positive"),
        (SLURM | {"join_timeout": 0}, "--join_timeout=0 must be positive"),
        (SLURM | {"name": "My Job"}, "--name='My Job' must be"),
        (SLURM | {"name": "a\n#SBATCH --wrap=x"}, "--name="),
        (SLURM | {"name": "a" * 64}, "--name="),
        (SLURM | {"time": "90"}, "--time='90' must be written as"),
        (SLURM | {"time": "00:02:00"}, "--time='00:02:00' must be at least 10 minutes"),
        (SLURM | {"time": "1:00:00\n#SBATCH --x"}, "--time="),
        (SLURM | {"image": "image"}, "--image='image' is not for slurm, but for kubeflow"),
        (SLURM | {"spot": False}, "--spot=False is not for slurm, but for skypilot"),
        (SLURM | {"storage": "a"}, "--storage='a' is not for slurm, but for kubeflow and skypilot"),
        (KUBEFLOW | {"time": "1:00:00"}, "--time='1:00:00' is not for kubeflow, but for slurm"),
        (KUBEFLOW | {"image": None}, "--image is missing"),
        (KUBEFLOW | {"image": ""}, "--image='' must not be empty"),
        (KUBEFLOW | {"storage": None}, "--storage is missing: a kubeflow job would lose its run folder"),
        (KUBEFLOW | {"mount": "storage"}, "--mount='storage' must be an absolute path"),
        (SKYPILOT | {"accelerator": None}, "--accelerator is missing"),
        (SKYPILOT | {"storage": None}, "--storage is missing: a skypilot job"),
    ],
)
def test_a_wrong_option_is_refused_by_its_name(options, message):
    with pytest.raises(UserError, match=message):
        Request(**options)


@pytest.mark.parametrize(
    ("time", "seconds"), [("1-00:00:00", 86400), ("0:10:00", 600), ("36:00:01", 129601), ("1:00", None), ("", None)]
)
def test_a_time_limit_is_read_as_slurm_reads_it(time, seconds):
    assert limit_seconds(time) == seconds


@pytest.mark.parametrize("run", ["/storage/runs/a", "/storage/a"])
def test_a_run_on_the_shared_storage_fits(run):
    require_fitting(Request(**KUBEFLOW), run)


@pytest.mark.parametrize("run", ["/storage-2/a", "runs/a", "/a"])
def test_a_run_beside_the_shared_storage_is_refused(run):
    with pytest.raises(UserError, match=f"--output {run} is not below /storage, where --storage volume is mounted"):
        require_fitting(Request(**SKYPILOT), run)


def test_a_run_of_slurm_may_be_anywhere():
    require_fitting(Request(**SLURM), "runs/a")
