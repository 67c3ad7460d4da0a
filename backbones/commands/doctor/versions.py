"""Software and machine in a report of a problem: versions, processor, GPU, and the cores that may be used."""

import os
import platform
import re
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from backbones.dataset.workers import usable_cores

PACKAGES = ("torchvision", "timm", "accelerate", "wandb", "numpy", "pillow")
DALI = ("nvidia-dali-cuda120", "nvidia-dali-cuda130")
"""DALI has a package for each version of CUDA; one of them is installed."""
NOT_INSTALLED = "not installed"


def versions() -> list[str]:
    """Return the versions and the machine, without paths, names of people or environment variables."""
    cuda = f"CUDA runtime {torch.version.cuda}" if torch.version.cuda else "without CUDA"
    gpus = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    return [
        f"backbones   {version_of('backbones')}, python {platform.python_version()}",
        f"packages    torch {torch.__version__} ({cuda}), {', '.join(_packages())}",
        f"cpu         {_cpu()}, {usable_cores()} of {core_count(os.cpu_count() or 1)} usable, "
        f"{torch.get_num_threads()} threads of torch",
        f"gpu         {', '.join(gpus) or 'none'}, driver {_driver()}",
        f"system      {platform.platform()}",
    ]


def _packages() -> Iterator[str]:
    for name in PACKAGES:
        yield f"{name} {version_of(name)}"
    dali = [f"{name} {version_of(name)}" for name in DALI if version_of(name) != NOT_INSTALLED]
    yield from dali or [f"DALI {NOT_INSTALLED}"]


def version_of(package: str) -> str:
    """Return the version of an installed package, or that it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return NOT_INSTALLED


def core_count(number: int) -> str:
    """Return the number with its word: "1 core", "2 cores"."""
    return f"{number} core{'s' if number != 1 else ''}"


def _cpu() -> str:
    named = re.search(r"^model name\s*: (.+)$", _text("/proc/cpuinfo"), re.MULTILINE)
    return named[1] if named else platform.machine()


def _driver() -> str:
    """Return the version number of NVIDIA's kernel driver; the file also names who built it."""
    number = re.search(r"\d+\.\d+(\.\d+)?", _text("/proc/driver/nvidia/version"))
    return number[0] if number else "none"


def _text(file: str) -> str:
    try:
        return Path(file).read_text()
    except OSError:
        return ""
