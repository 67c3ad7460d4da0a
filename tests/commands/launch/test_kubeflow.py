"""Kubeflow's own classes take the TrainJob. They let unknown keys pass, which are refused here."""

import types
from itertools import chain
from typing import Any, Union, get_args, get_origin

import pytest
import yaml

from backbones.commands.launch.kubeflow import train_job, write_train_job

TRAIN_JOB = pytest.importorskip(
    "kubeflow_trainer_api.models.trainer_v1alpha1_train_job", reason="needs the package kubeflow-trainer-api"
).TrainerV1alpha1TrainJob


def unknown_keys(value: Any, kind: Any, place: str = "") -> list[str]:
    """Return the keys of ``value`` that its class does not have, at any depth."""
    if get_origin(kind) in (Union, types.UnionType):
        kind = next(part for part in get_args(kind) if part is not type(None))
    if get_origin(kind) is list:
        found = (unknown_keys(item, get_args(kind)[0], f"{place}[{i}]") for i, item in enumerate(value))
        return [*chain.from_iterable(found)]
    if not isinstance(value, dict) or not hasattr(kind, "model_fields"):
        return []
    fields = {field.alias or name: field.annotation for name, field in kind.model_fields.items()}
    unknown = [f"{place}.{key}" for key in value if key not in fields]
    below = (unknown_keys(item, fields[key], f"{place}.{key}") for key, item in value.items() if key in fields)
    return [*unknown, *chain.from_iterable(below)]


@pytest.fixture
def content(job) -> dict[str, Any]:
    """A TrainJob of two hosts with eight GPUs, as it is read from its file."""
    return yaml.safe_load(write_train_job(*job("kubeflow", "--model", "resnet50")))


def test_kubeflow_takes_the_job_with_every_key(content):
    read = TRAIN_JOB.from_dict(content)
    assert read.to_dict() == content
    assert unknown_keys(content, TRAIN_JOB) == []


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ((), ".colour"),
        (("spec",), ".spec.colour"),
        (("spec", "trainer"), ".spec.trainer.colour"),
        (("spec", "trainer", "resourcesPerNode"), ".spec.trainer.resourcesPerNode.colour"),
        (("spec", "runtimePatches", 0), ".spec.runtimePatches[0].colour"),
    ],
)
def test_an_unknown_key_is_found_that_kubeflow_lets_pass(content, path, place):
    part = content
    for step in path:
        part = part[step]
    part["colour"] = "red"
    assert TRAIN_JOB.from_dict(content) is not None
    assert unknown_keys(content, TRAIN_JOB) == [place]


def test_the_hosts_gpus_and_processes_are_those_asked_for(content):
    trainer = content["spec"]["trainer"]
    assert (trainer["numNodes"], trainer["numProcPerNode"]) == (2, 8)
    assert trainer["resourcesPerNode"] == {"requests": {"cpu": "40"}, "limits": {"nvidia.com/gpu": "8"}}
    assert content["apiVersion"] == "trainer.kubeflow.org/v1alpha1"


def test_a_job_on_cpus_asks_for_no_gpu(job):
    trainer = train_job(*job("kubeflow", gpus=0))["spec"]["trainer"]
    assert trainer["numProcPerNode"] == 1
    assert "limits" not in trainer["resourcesPerNode"]


def test_torchrun_is_told_the_hosts_by_the_operator_and_goes_on_by_itself(content):
    trainer = content["spec"]["trainer"]
    assert trainer["command"] == ["python", "-m", "torch.distributed.run"]
    assert not any(word.startswith(("--nnodes", "--node-rank", "--master")) for word in trainer["args"])
    assert trainer["args"][trainer["args"].index("--resume") + 1] == "auto"


def test_the_shared_storage_is_mounted_where_the_run_is(content):
    job = content["spec"]["runtimePatches"][0]["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"][0]
    pod = job["template"]["spec"]["template"]["spec"]
    mounts = {mount["name"]: mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
    assert mounts == {"storage": "/storage", "shared-memory": "/dev/shm"}
    assert pod["volumes"][0]["persistentVolumeClaim"] == {"claimName": "claim"}
