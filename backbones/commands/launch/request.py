"""Options of `launch`: the size of the job, and what each engine needs to know about its site."""

import re
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Literal

from backbones.errors import UserError
from backbones.recipe import require, require_positive

Engine = Literal["slurm", "kubeflow", "skypilot"]

NAME = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
"""Names that all three engines take: labels of RFC 1035."""

TIME = re.compile(r"((?P<days>\d+)-)?(?P<hours>\d+):(?P<minutes>\d\d):(?P<seconds>\d\d)")
"""Time limit of SLURM."""

MIN_SECONDS = 600
"""Shortest time limit. The signal to save comes two minutes before the end."""

ONLY_FOR: dict[str, tuple[Engine, ...]] = {
    "time": ("slurm",),
    "image": ("kubeflow",),
    "runtime": ("kubeflow",),
    "accelerator": ("skypilot",),
    "spot": ("skypilot",),
    "storage": ("kubeflow", "skypilot"),
    "mount": ("kubeflow", "skypilot"),
}
"""Option that not every engine uses -> the engines that do."""


@dataclass(frozen=True)
class Request:
    """Options of `launch`."""

    engine: Engine = field(metadata={"positional": "ENGINE"})
    """Scheduler that takes the file: slurm (sbatch), kubeflow (a TrainJob of Kubeflow Trainer v2) or skypilot."""
    nodes: int
    """Number of hosts."""
    gpus: int
    """GPUs of each host, with one process for each. 0: one process on the CPU of each host."""
    name: str = "backbones"
    """Name of the job."""
    cpus: int | None = None
    """CPU cores of each host; unset: for each process, its decoding threads (--workers) and one more."""
    time: str | None = None
    """slurm: time limit as [DAYS-]HOURS:MINUTES:SECONDS; unset: that of the partition."""
    image: str | None = None
    """kubeflow: container image with this repository as its working directory, and its Python packages."""
    runtime: str = "torch-distributed"
    """kubeflow: ClusterTrainingRuntime that the job uses."""
    accelerator: str | None = None
    """skypilot: kind of GPU, such as H100."""
    spot: bool = True
    """skypilot: take spot instances, which cost less and may be taken away."""
    storage: str | None = None
    """Storage that all hosts share, for the data and the run folder. kubeflow: a persistent volume claim. skypilot: a
    volume, or the URL of a bucket."""
    mount: str = "/storage"
    """Folder at which --storage appears on each host."""
    python: str = "python"
    """Interpreter on the hosts."""
    script: str = "train_imagenet.py"
    """Training script on the hosts."""
    join_timeout: int = 600
    """Seconds that the hosts wait for each other at the start."""
    output: str | None = None
    """File to write; unset: print it."""

    def __post_init__(self) -> None:
        require_positive(self, "--", "nodes", "cpus", "join_timeout")
        require(self.gpus >= 0, "--gpus", self.gpus, "must not be negative")
        require(NAME.fullmatch(self.name) is not None, "--name", self.name, "must be lower case letters, digits and -")
        for option in ("image", "runtime", "accelerator", "storage", "python", "script"):
            require(getattr(self, option) != "", f"--{option}", "", "must not be empty (an unset variable?)")
        require(PurePosixPath(self.mount).is_absolute(), "--mount", self.mount, "must be an absolute path")
        self._require_own_options()
        self._require_site()
        if self.time is not None:
            seconds = limit_seconds(self.time)
            require(seconds is not None, "--time", self.time, "must be written as [DAYS-]HOURS:MINUTES:SECONDS")
            require((seconds or 0) >= MIN_SECONDS, "--time", self.time, "must be at least 10 minutes")

    @property
    def processes_per_node(self) -> int:
        """Training processes of each host."""
        return max(1, self.gpus)

    @property
    def processes(self) -> int:
        """Training processes of all hosts."""
        return self.nodes * self.processes_per_node

    def _require_own_options(self) -> None:
        """Raise UserError where an option of another engine is set."""
        for option, engines in ONLY_FOR.items():
            value = getattr(self, option)
            is_set = value != type(self).__dataclass_fields__[option].default
            fits = self.engine in engines or not is_set
            require(fits, f"--{option}", value, f"is not for {self.engine}, but for {' and '.join(engines)}")

    def _require_site(self) -> None:
        """Raise UserError where the engine needs an option that is not set."""
        if self.engine in ONLY_FOR["storage"] and self.storage is None:
            raise UserError(f"--storage is missing: a {self.engine} job would lose its run folder with its hosts.")
        if self.engine == "kubeflow" and self.image is None:
            raise UserError("--image is missing: name the container image that has this repository in it.")
        if self.engine == "skypilot" and self.gpus and self.accelerator is None:
            raise UserError("--accelerator is missing: name the kind of GPU, such as H100.")


def limit_seconds(time: str) -> int | None:
    """Return a time limit in seconds; None where it is not written as SLURM has it."""
    match = TIME.fullmatch(time)
    if match is None:
        return None
    days, hours, minutes, seconds = (int(match[part] or 0) for part in ("days", "hours", "minutes", "seconds"))
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def require_fitting(request: Request, run: str) -> None:
    """Raise UserError where the run folder would not outlive the hosts."""
    if request.storage is not None and not PurePosixPath(run).is_relative_to(request.mount):
        raise UserError(
            f"--output {run} is not below {request.mount}, where --storage {request.storage} is mounted: "
            f"the run would be lost with its hosts. Write --output {request.mount}/RUN, or another --mount."
        )
