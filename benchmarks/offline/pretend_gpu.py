"""Torch that believes in one H100, for the time in which Inductor generates code. Nothing can run on it."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
import torch._inductor.scheduler
import torch.utils._triton
import triton
from torch import Tensor
from torch._dynamo.device_interface import CudaInterface
from triton.backends.compiler import GPUTarget

H100 = SimpleNamespace(
    name="NVIDIA H100 80GB HBM3",
    major=9,
    minor=0,
    warp_size=32,
    multi_processor_count=132,
    total_memory=80 << 30,
    regs_per_multiprocessor=65536,
    max_threads_per_block=1024,
    max_threads_per_multi_processor=2048,
    shared_memory_per_block=48 << 10,
    shared_memory_per_block_optin=227 << 10,
    shared_memory_per_multiprocessor=228 << 10,
    L2_cache_size=50 << 20,
    clock_rate=1_980_000,
    memory_clock_rate=2_619_000,
    memory_bus_width=5120,
)
"""Properties of the device, as torch.cuda names them."""


def _always(value: Any) -> Callable[..., Any]:
    return lambda *_, **__: value


_TORCH_CUDA = {
    "is_available": True,
    "device_count": 1,
    "current_device": 0,
    "get_device_name": H100.name,
    "get_device_capability": (H100.major, H100.minor),
    "get_device_properties": H100,
    "_lazy_init": None,
    "_exchange_device": 0,
    "_maybe_exchange_device": 0,
    "get_rng_state": torch.zeros(16, dtype=torch.uint8),
    "set_rng_state": None,
}

_INTERFACE = {
    "is_available": True,
    "current_device": 0,
    "device_count": 1,
    "get_compute_capability": 90,
    "get_device_properties": H100,
    "is_triton_capable": True,
    "raise_if_triton_unavailable": None,
    "exchange_device": 0,
    "maybe_exchange_device": 0,
    "set_device": None,
    "synchronize": None,
    "get_raw_stream": 0,
}
"""Answers of the interface through which Inductor asks for a GPU."""

_WORKER = {"get_device_properties": H100, "current_device": 0, "set_device": None}


_DRIVER = SimpleNamespace(
    get_current_target=_always(GPUTarget("cuda", 10 * H100.major + H100.minor, H100.warp_size)),
    get_current_device=_always(0),
    get_active_torch_device=_always(torch.device("cuda", 0)),
    is_active=_always(True),
)
"""Triton's view of the device."""


def _choose_layout(images: Tensor, weight: Tensor, _backend: Any) -> torch.memory_format:
    """Return the memory format of a convolution's result as cuDNN has it; torch asks the driver for this otherwise."""
    is_last = any(_is_channels_last(tensor) for tensor in (images, weight))
    return torch.channels_last if is_last else torch.contiguous_format


def _is_channels_last(tensor: Tensor) -> bool:
    return tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last)


@contextmanager
def pretend_gpu() -> Iterator[None]:
    """Let torch answer as on a machine with one H100.

    Torch caches some answers. Use this in a process that does nothing else.
    """
    answers = [
        (torch.cuda, _TORCH_CUDA),
        (CudaInterface, _INTERFACE),
        (CudaInterface.Worker, _WORKER),
        (torch.utils._triton, {"has_triton": True}),
        (torch._inductor.scheduler, {"has_triton": True}),
    ]
    with ExitStack() as patches:
        for owner, values in answers:
            for name, value in values.items():
                patches.enter_context(mock.patch.object(owner, name, _staticmethod_in(owner, _always(value))))
        patches.enter_context(mock.patch.object(triton.runtime.driver, "_active", _DRIVER))
        patches.enter_context(mock.patch.object(torch._C, "_conv_determine_backend_memory_format", _choose_layout))
        yield


def _staticmethod_in(owner: Any, function: Callable[..., Any]) -> Any:
    return staticmethod(function) if isinstance(owner, type) else function
