"""A job script for SLURM: one torchrun on each host, a signal before the end, and a requeue."""

from shlex import quote

from backbones.commands.launch.request import Request
from backbones.commands.launch.template import fill
from backbones.commands.launch.torchrun import torchrun_options
from backbones.commands.launch.training import Training, cores_per_node, describe

SECONDS_TO_SAVE = 120
"""Seconds before the time limit at which SLURM sends SIGUSR1. A run needs up to 25 s of them."""

TEMPLATE = "job.sbatch"


def write_job(request: Request, training: Training) -> str:
    """Return the text of a job script for ``sbatch``."""
    directives = [f"#SBATCH --{option}\n" for option in _list_directives(request, training)]
    values = {
        "summary": describe(request, training.recipe).replace("\n", " "),
        "directives": "".join(directives).removesuffix("\n"),
        "run": quote(training.run),
        "python": quote(request.python),
        "torchrun": " ".join(map(quote, torchrun_options(request))),
        "training": " ".join(map(quote, (request.script, *training.words))),
    }
    return fill(TEMPLATE, values)


def _list_directives(request: Request, training: Training) -> list[str]:
    options = [
        f"job-name={request.name}",
        f"nodes={request.nodes}",
        "ntasks-per-node=1",
        f"cpus-per-task={cores_per_node(request, training.recipe)}",
        f"signal=B:USR1@{SECONDS_TO_SAVE}",
        "requeue",
        "open-mode=append",
        "output=%x-%j.out",
    ]
    options += [f"gpus-per-node={request.gpus}"] if request.gpus else []
    return options + ([f"time={request.time}"] if request.time else [])
