"""Description of the machine, the versions and the commit that a figure belongs to."""

import os
import platform
import subprocess
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parents[1]
PACKAGES = ("torch", "torchvision", "timm", "triton", "accelerate", "nvidia-dali-cuda120", "pillow", "numpy")


def describe_machine() -> dict[str, Any]:
    """Return the processor, its cores and load, and the GPU where there is one."""
    found: dict[str, Any] = {"processor": processor_name(), "cores": os.cpu_count(), "threads": torch.get_num_threads()}
    found["load_average"] = round(os.getloadavg()[0], 2)
    return found | (describe_gpu() if torch.cuda.is_available() else {})


def processor_name() -> str:
    """Return the model of the processor, or its architecture where the system does not say."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return next((name for name in names if name != "unknown"), platform.processor() or platform.machine())


def describe_gpu() -> dict[str, Any]:
    """Return the name, memory, capability and driver of the first GPU, with the versions of CUDA and cuDNN."""
    properties = torch.cuda.get_device_properties(0)
    return {
        "gpu": properties.name,
        "gpu_gigabytes": round(properties.total_memory / 2**30, 1),
        "capability": f"{properties.major}.{properties.minor}",
        "multiprocessors": properties.multi_processor_count,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "driver, clocks": output_of("nvidia-smi", "--query-gpu=driver_version,clocks.sm,clocks.max.sm", "--format=csv"),
    }


def describe_versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that are installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def commit() -> str:
    """Return the commit, with "-dirty" where files differ from it."""
    return output_of("git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*")


def date_of_today() -> str:
    """Return today's date."""
    return date.today().isoformat()


def output_of(*command: str) -> str:
    """Return what a program prints, or "unknown" where it is missing or fails."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"
