"""A task for SkyPilot's managed jobs: torchrun on each host, spot instances, recovery after a preemption."""

from shlex import quote
from typing import Any

from backbones.commands.launch.request import Request
from backbones.commands.launch.template import fill, yaml_text
from backbones.commands.launch.torchrun import torchrun_options
from backbones.commands.launch.training import Training, cores_per_node, describe
from backbones.errors import PREEMPTED

TEMPLATE = "skypilot.sh"

MAX_RESTARTS_ON_ERRORS = 3
"""Restarts of a run that failed, such as after a lost host. Those after a preemption are not counted."""

SETUP = "pip install '.[train]'"


def write_task(request: Request, training: Training) -> str:
    """Return the text of a task for ``sky jobs launch``."""
    note = "Written by `python -m backbones launch skypilot`; see docs/clusters.md."
    return yaml_text(task(request, training), describe(request, training.recipe), note)


def task(request: Request, training: Training) -> dict[str, Any]:
    """Return a task."""
    return {
        "name": request.name,
        "num_nodes": request.nodes,
        "resources": _list_resources(request, training),
        "workdir": ".",
        **_mount_storage(request),
        "setup": SETUP,
        "run": _write_script(request, training),
    }


def _list_resources(request: Request, training: Training) -> dict[str, Any]:
    recovery = {"max_restarts_on_errors": MAX_RESTARTS_ON_ERRORS, "recover_on_exit_codes": [PREEMPTED]}
    gpus = {"accelerators": f"{request.accelerator}:{request.gpus}"} if request.gpus else {}
    cpus = f"{cores_per_node(request, training.recipe)}+"
    return {**gpus, "cpus": cpus, "use_spot": request.spot, "job_recovery": recovery}


def _mount_storage(request: Request) -> dict[str, Any]:
    """Return the key that mounts a volume, or a bucket where the storage is a URL."""
    if "://" not in str(request.storage):
        return {"volumes": {request.mount: request.storage}}
    return {"file_mounts": {request.mount: {"source": request.storage, "mode": "MOUNT_CACHED"}}}


def _write_script(request: Request, training: Training) -> str:
    values = {
        "run": quote(training.run),
        "python": quote(request.python),
        "torchrun": " ".join(map(quote, torchrun_options(request))),
        "training": " ".join(map(quote, (request.script, *training.words))),
        "preempted": str(PREEMPTED),
    }
    return fill(TEMPLATE, values)
