"""Machine code of Triton kernels for GPUs that are not there: registers, spills, and the width of global accesses.

A kernel's launcher is called as usual, with tensors on the CPU. Each launch is compiled as Triton would, and not run.
"""

import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction

TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
ARCHITECTURES = (80, 90, 100)
"""Compute capabilities times ten: A100, H100 and H200, B200."""


@dataclass(frozen=True)
class Binary:
    """Figures of one compiled launch, read from its machine code."""

    kernel: str
    architecture: int
    registers: int
    """Registers of a thread."""
    stack: int
    """Bytes of local memory of a thread."""
    shared: int
    """Bytes of shared memory of a block."""
    spills: int
    """Instructions that read or write local memory."""
    wide_loads: int
    """Instructions that read 128 bits of global memory or more."""
    wide_stores: int
    """Instructions that write 128 bits of global memory or more."""
    narrow_loads: int
    """Instructions that read 8 or 16 bits of global memory."""
    narrow_stores: int
    """Instructions that write 8 or 16 bits of global memory."""


def compile_launches(launch: Callable[[], Any], architecture: int) -> list[Binary]:
    """Call ``launch`` and return the figures of every kernel that it launches, in order.

    Raises:
        RuntimeError: the process runs Triton's interpreter, which has no machine code.
    """
    if triton.knobs.runtime.interpret:
        raise RuntimeError("TRITON_INTERPRET=1 is set: compile kernels in a process without it")
    with _record_launches(architecture) as compiled:
        launch()
    return [
        read_binary(each.metadata.name, architecture, each.asm["cubin"], shared=each.metadata.shared)
        for each in compiled
    ]


@contextmanager
def _record_launches(architecture: int) -> Iterator[list[Any]]:
    compiled: list[Any] = []
    run = JITFunction.run

    def compile_only(kernel: Any, *args: Any, **options: Any) -> Any:
        compiled.append(run(kernel, *args, **{**options, "warmup": True}))
        return compiled[-1]

    with (
        mock.patch.object(JITFunction, "run", compile_only),
        mock.patch.object(triton.runtime.driver, "_active", create_driver(architecture)),
    ):
        yield compiled


def create_driver(architecture: int) -> Any:
    """Return a driver of Triton for one GPU of this architecture. It can do nothing but name the GPU."""
    return SimpleNamespace(
        get_current_target=lambda: GPUTarget("cuda", architecture, 32),
        get_current_device=lambda: architecture,  # Triton caches binaries by device
        get_current_stream=lambda _device: 0,
        get_active_torch_device=lambda: torch.device("cuda", 0),
        is_active=lambda: True,
    )


def read_binary(kernel: str, architecture: int, cubin: bytes, *, shared: int) -> Binary:
    """Disassemble a cubin and count."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)
        usage, code = _run("cuobjdump", "-res-usage", path), _run("nvdisasm", path)
    sizes = {name: int(value) for name, value in re.findall(r"(REG|STACK):(\d+)", usage)}
    return Binary(
        kernel,
        architecture,
        registers=sizes["REG"],
        stack=sizes["STACK"],
        shared=shared,
        spills=_count(r"(?:LDL|STL)\b", code),
        wide_loads=_count(r"(?:LDG|LDGSTS)\.\S*(?:128|256)", code),
        wide_stores=_count(r"STG\.\S*(?:128|256)", code),
        narrow_loads=_count(r"LDG\.\S*[US](?:8|16)\b", code),
        narrow_stores=_count(r"STG\.\S*[US](?:8|16)\b", code),
    )


def _run(tool: str, *arguments: str | Path) -> str:
    return subprocess.run([TOOLS / tool, *arguments], check=True, capture_output=True, text=True).stdout


def _count(instruction: str, code: str) -> int:
    return len(re.findall(rf"\*/\s+(?:@!?U?P\d+ )?{instruction}", code))
