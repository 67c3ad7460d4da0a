"""A TrainJob for Kubeflow Trainer v2: torchrun in each pod, which the operator tells the hosts by PET_* variables."""

from typing import Any

from backbones.commands.launch.request import Request
from backbones.commands.launch.template import yaml_text
from backbones.commands.launch.torchrun import MODULE, torchrun_options
from backbones.commands.launch.training import Training, cores_per_node, describe

API = "trainer.kubeflow.org/v1alpha1"

NODE = "node"
"""Name of the replicated job and of its container in the runtime torch-distributed."""

SHARED_MEMORY = "/dev/shm"
"""Kubernetes gives it 64 MB, which is too little for NCCL."""


def write_train_job(request: Request, training: Training) -> str:
    """Return the text of a TrainJob for ``kubectl create``."""
    note = "Written by `python -m backbones launch kubeflow`; see docs/clusters.md."
    return yaml_text(train_job(request, training), describe(request, training.recipe), note)


def train_job(request: Request, training: Training) -> dict[str, Any]:
    """Return a TrainJob."""
    spec = {
        "runtimeRef": {"name": request.runtime},
        "trainer": _describe_trainer(request, training),
        "runtimePatches": [_patch_volumes(request)],
    }
    return {"apiVersion": API, "kind": "TrainJob", "metadata": {"name": request.name}, "spec": spec}


def _describe_trainer(request: Request, training: Training) -> dict[str, Any]:
    resources: dict[str, dict[str, str]] = {"requests": {"cpu": str(cores_per_node(request, training.recipe))}}
    if request.gpus:
        resources["limits"] = {"nvidia.com/gpu": str(request.gpus)}
    return {
        "image": request.image,
        "command": [request.python, *MODULE],
        "args": [*torchrun_options(request), request.script, *training.words],
        "numNodes": request.nodes,
        "numProcPerNode": request.processes_per_node,
        "resourcesPerNode": resources,
    }


def _patch_volumes(request: Request) -> dict[str, Any]:
    """Return the change of the runtime that mounts the shared storage and a larger /dev/shm."""
    volumes = [
        {"name": "storage", "persistentVolumeClaim": {"claimName": request.storage}},
        {"name": "shared-memory", "emptyDir": {"medium": "Memory"}},
    ]
    mounts = [
        {"name": "storage", "mountPath": request.mount},
        {"name": "shared-memory", "mountPath": SHARED_MEMORY},
    ]
    pod = {"volumes": volumes, "containers": [{"name": NODE, "volumeMounts": mounts}]}
    job = {"name": NODE, "template": {"spec": {"template": {"spec": pod}}}}
    return {
        "manager": "backbones/launch",
        "trainingRuntimeSpec": {"template": {"spec": {"replicatedJobs": [job]}}},
    }
