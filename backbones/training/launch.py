"""One Accelerator per process, as the launcher asked for it, and loud when the launcher did something else."""

import ctypes
import os
import shlex
import signal
import sys
import warnings
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import torch
import yaml
from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs

from backbones.errors import UserError
from backbones.recipe import Precision, Recipe
from backbones.training.arithmetic import choose_arithmetic
from backbones.training.launch_variables import explaining_variables, require_asked_accumulation
from backbones.training.network import explaining_absence, prepare_network

_ACCELERATE_NAMES: dict[Precision, str] = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}
PR_SET_PDEATHSIG = 1
"""Option of Linux's prctl."""
_LAUNCHERS = {
    "accelerate": "accelerate",
    "accelerate-launch": "accelerate launch",
    "accelerate.commands.launch": "accelerate launch",
}
"""Names of accelerate's launcher, and how a user writes each."""
_ALL_LAUNCHERS = _LAUNCHERS | {"torchrun": "torchrun", "torch.distributed.run": "torchrun"}


def create_accelerator(
    *,
    precision: Precision = "auto",
    device: str = "auto",
    grad_accum_steps: int = 1,
    tf32: bool | None = None,
    static_graph: bool = False,
    timeout: float = 600.0,
    obey_launcher: bool = True,
) -> Accelerator:
    """Return the Accelerator of this process.

    Raises ``UserError`` when fewer processes run than the launcher was asked for, when it asks for a GPU that is not
    there, when its mixed precision contradicts ``precision``, when variables of another launcher are in the way, or
    when the processes of several hosts do not come together within ``timeout`` seconds. Without ``obey_launcher`` the
    launcher's mixed precision and accumulation are ignored. ``tf32`` is that of `choose_arithmetic`, and
    ``static_graph`` that of DDP.
    """
    launched = os.environ.get("ACCELERATE_MIXED_PRECISION") if obey_launcher else None
    launcher = _launcher_words()
    if is_launched(launcher):
        end_with_parent()
    _require_asked_gpu(launcher, device)
    with explaining_variables(), explaining_absence(timeout):
        prepare_network(limit=timeout)
        accelerator = Accelerator(
            cpu=device == "cpu" or not torch.cuda.is_available(),
            mixed_precision=mixed_precision(precision, launched),
            gradient_accumulation_steps=grad_accum_steps,
            kwargs_handlers=_process_options(timeout, static_graph=static_graph),
        )
    if obey_launcher:
        require_asked_accumulation(accelerator, grad_accum_steps)
    check_processes(accelerator.num_processes, requested_processes(launcher))
    choose_arithmetic(accelerator.device, tf32=tf32)
    return accelerator


def _require_asked_gpu(launcher: list[str], device: str) -> None:
    if launch_file(launcher).get("use_cpu") is False and device == "auto" and not torch.cuda.is_available():
        raise UserError("the launch file asks for a GPU (use_cpu: false), but torch sees none here.")


def _process_options(timeout: float, *, static_graph: bool) -> list[Any]:
    # Torch 2.14 renames the option; torch 2.11 does not know the new name yet.
    warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated", category=FutureWarning)
    return [
        DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True, static_graph=static_graph),
        InitProcessGroupKwargs(timeout=timedelta(seconds=timeout)),
    ]


def has_static_graph(recipe: Recipe) -> bool:
    """Return whether DDP may take it that every backward pass has the same graph and is followed by a sum.

    With accumulation torch 2.14 fails, or forgets the sum without a word (its pull request 187732). A compiled network
    is split by its own rule (its issue 109261).
    """
    return recipe.grad_accum_steps == 1 and not recipe.torchcompile


def require_deterministic() -> None:
    """Let torch use deterministic operations only. Call it before anything runs on a GPU."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False


def mixed_precision(precision: Precision, launched: str | None) -> str:
    """Return accelerate's name of the precision; the launcher's "no" is its default and gives way."""
    launched = launched or "no"
    if launched not in _ACCELERATE_NAMES.values():
        known = ", ".join(_ACCELERATE_NAMES.values())
        raise UserError(f"accelerate was launched with mixed_precision {launched}, which is not one of {known}.")
    if precision == "auto":
        return launched
    wanted = _ACCELERATE_NAMES[precision]
    if launched not in ("no", wanted):
        raise UserError(f"--precision {precision}, but accelerate was launched with mixed_precision {launched}.")
    return wanted


def precision_name(accelerator: Accelerator) -> Precision:
    """Return the accelerator's precision in the recipe's words."""
    return next(key for key, name in _ACCELERATE_NAMES.items() if name == accelerator.mixed_precision)


def launch_command() -> str:
    """Return the command that started this process, up to the script's own options."""
    words = _launcher_words()
    launcher = next((i for i, word in enumerate(words) if Path(word).name in _ALL_LAUNCHERS), None)
    script = next((i for i, word in enumerate(words) if word.endswith(".py")), None)
    if launcher is None or script is None or script < launcher:
        return f"python {sys.argv[0]}"
    return f"{_ALL_LAUNCHERS[Path(words[launcher]).name]} {shlex.join(words[launcher + 1 : script + 1])}"


def requested_processes(launcher: list[str]) -> int | None:
    """Return the process count that the words of an ``accelerate launch`` command line ask for, or None."""
    if not any(Path(word).name in _LAUNCHERS for word in launcher):
        return None
    options = _read_options(launcher)
    if "__num_processes" in options:
        return int(options["__num_processes"])
    count = launch_file(launcher).get("num_processes")
    return count if isinstance(count, int) else None


def launch_file(launcher: list[str]) -> dict[str, Any]:
    """Return the content of the launch file that the words of ``accelerate launch`` name; {} where they name none."""
    options = _read_options(launcher)
    try:
        content = yaml.safe_load(Path(options.get("__config_file", "")).read_text())
    except (OSError, yaml.YAMLError):
        return {}
    return content if isinstance(content, dict) else {}


def is_launched(words: list[str]) -> bool:
    """Tell whether these words of a parent process are those of accelerate's launcher or torchrun."""
    return any(Path(word).name in _ALL_LAUNCHERS for word in words)


def end_with_parent() -> None:
    """Get SIGTERM when the launcher dies, so that no orphan trains on and holds the run folder (Linux)."""
    parent = os.getppid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it died before the call
        os.kill(os.getpid(), signal.SIGTERM)


def check_processes(running: int, requested: int | None) -> None:
    """Refuse to train on fewer processes than were asked for."""
    if requested is not None and running < requested:
        raise UserError(
            f"accelerate launch was asked for {requested} processes but started {running}: with --cpu, and without "
            "--multi_gpu, it ignores --num_processes. Use `accelerate launch --config_file "
            "configs/accelerate/cpu2.yaml ...` for two CPU processes."
        )


def _launcher_words() -> list[str]:
    parent = psutil.Process().parent()
    try:
        return parent.cmdline() if parent else []
    except psutil.Error:
        return []


def _read_options(words: list[str]) -> dict[str, str]:
    """Return each word with the word after it, or with the text after its ``=``; dashes become underscores."""
    options = {}
    for word, following in zip(words, [*words[1:], ""], strict=True):
        option, equals, value = word.partition("=")
        options[option.replace("-", "_")] = value if equals else following
    return options
