"""torch.compile of the networks of a run: where it is applied, in which mode, and whether this machine can.

The network is compiled in place before DistributedDataParallel wraps it. When the wrapper calls it for the first time,
torch splits the graph at the buckets of gradients, so that the all-reduce of one bucket overlaps the backward of the
next; the tests count that. Validation calls the same network without the wrapper and gets one graph of its own.
"""

import importlib.util
import os
import shlex
import shutil
import sys
import sysconfig
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from backbones.errors import UserError
from backbones.recipe import CompileMode, Recipe
from backbones.training.evaluate import predict_black
from backbones.training.loop import Run

BACKEND = "inductor"
"""Compiler of torch.compile."""

MIN_CAPABILITY = (7, 0)
"""Compute capability of the oldest GPU that Triton compiles for."""

_CXX = "clang++" if sys.platform == "darwin" else "g++"
"""C++ compiler that torch takes where CXX names none."""


def compile_networks(recipe: Recipe, device: torch.device, networks: Iterable[nn.Module]) -> None:
    """Compile the networks of a run as its recipe says."""
    split_at_buckets(grad_checkpointing=recipe.grad_checkpointing)
    for network in networks:
        compile_network(network, recipe.torchcompile, device)


def compile_network(network: nn.Module, mode: CompileMode | bool, device: torch.device) -> None:  # noqa: FBT001
    """Let a network compile itself in place when it is called; its type and the names of its tensors stay.

    Each size of input is compiled by itself: one graph for all of them would be slower, and a run has one size.
    """
    if mode:
        network.compile(backend=BACKEND, mode=choose_mode(mode, device), dynamic=False)


def choose_mode(mode: CompileMode | Literal[True], device: torch.device) -> CompileMode:
    """Return the mode for a device. The others than the default are for GPUs, with CUDA graphs and Triton's kernels."""
    return "default" if mode is True or device.type != "cuda" else mode


def uses_cuda_graphs(mode: CompileMode | bool, device: torch.device) -> bool:  # noqa: FBT001
    """Return whether a network is replayed as a CUDA graph, which writes its results to the same memory each time."""
    return device.type == "cuda" and mode in ("reduce-overhead", "max-autotune")


def keep_gradients(recipe: Recipe, device: torch.device, parameters: Iterable[nn.Parameter]) -> bool:
    """Give every parameter a gradient of zeros where it must keep it between micro-batches, and return whether so.

    Otherwise autograd takes over the memory of the first micro-batch's gradient. With CUDA graphs it belongs to the
    graph, and the next micro-batch would overwrite it in place of adding to it.
    """
    if recipe.grad_accum_steps == 1 or not uses_cuda_graphs(recipe.torchcompile, device):
        return False
    for parameter in parameters:
        if parameter.requires_grad:
            parameter.grad = torch.zeros_like(parameter)
    return True


def split_at_buckets(*, grad_checkpointing: bool) -> None:
    """Let the all-reduce overlap the backward pass, where this version of torch can.

    Before torch 2.14 a graph with checkpointing cannot be split, and torch refuses to compile it.
    """
    version = tuple(int(part) for part in torch.__version__.split(".")[:2])
    torch._dynamo.config.optimize_ddp = not grad_checkpointing or version >= (2, 14)


def compile_validation(run: Run, beat: Callable[[str], None] = lambda _phase: None) -> None:
    """Compile the evaluation of the networks now: here a process may take longer than in the first validation.

    Args:
        run: the run; where it is not compiled, nothing is done.
        beat: called with what comes next.
    """
    if run.padded_batch is None:
        return
    size = run.recipe.img_size
    for name, network in run.networks.items():
        beat(f"the compilation of {name}")
        predict_black(run.accelerator, run.for_evaluation(network), (run.padded_batch, 3, size, size))
    beat(f"step {run.step + 1}")


def require_compiler(mode: CompileMode | bool, device: torch.device) -> None:  # noqa: FBT001
    """Raise UserError where the machine lacks what torch.compile needs; False needs nothing."""
    fault = find_fault(device) if mode else None
    if fault:
        raise UserError(f"--torchcompile: {fault}, or go without --torchcompile.")


def find_fault(device: torch.device) -> str | None:
    """Return what torch.compile lacks for a device, with the remedy."""
    if device.type == "cuda":
        return _find_fault_of_gpu(device)
    command = os.environ.get("CXX") or _CXX
    if not _is_program(command):
        return f"there is no C++ compiler {command}, which builds the code for a CPU. Install g++, name one in CXX"
    return _find_missing_headers()


def _find_fault_of_gpu(device: torch.device) -> str | None:
    if torch.cuda.get_device_capability(device) < MIN_CAPABILITY:
        name = torch.cuda.get_device_name(device)
        return f"{name} is older than compute capability 7.0, which Triton needs. Use another GPU"
    if importlib.util.find_spec("triton") is None:
        return "Triton, which builds the code for a GPU, is not installed. Install it with pip install triton"
    if not any(_is_program(command) for command in (os.environ.get("CC") or "gcc", "clang")):
        return "there is no C compiler, with which Triton builds its launchers. Install gcc, name one in CC"
    return _find_missing_headers()


def _find_missing_headers() -> str | None:
    """Return the fault where the headers of Python are missing, which the code that is built includes."""
    header = Path(sysconfig.get_path("include"), "Python.h")
    return None if header.is_file() else f"{header} is missing. Install the headers of Python (python3-dev)"


def _is_program(command: str) -> bool:
    """Tell whether a command, perhaps with options, names a program that is installed."""
    return shutil.which(shlex.split(command)[0]) is not None
