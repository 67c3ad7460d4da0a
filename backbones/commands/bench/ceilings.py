"""Limits of a device: the bandwidth of a copy, measured, and the published peak of its matrix units."""

import torch

from backbones.commands.bench.options import BenchPrecision
from backbones.commands.bench.turns import take_turns

COPY_BYTES = {"cuda": 2**31, "cpu": 2**28}
"""Size of the copied tensor, far above the caches."""

COPY_ROUNDS = 5

PEAK_TFLOPS = {
    # NVIDIA A100 datasheet: BF16 and FP16 Tensor Core 312, without sparsity
    "NVIDIA A100-SXM4-40GB": 312.0,
    "NVIDIA A100-SXM4-80GB": 312.0,
    "NVIDIA A100-PCIE-40GB": 312.0,
    "NVIDIA A100 80GB PCIe": 312.0,
    # NVIDIA H100 and H200 datasheets, SXM: BF16 and FP16 Tensor Core 1,979 with sparsity, half of it without
    "NVIDIA H100 80GB HBM3": 989.5,
    "NVIDIA H200": 989.5,
    # NVIDIA Ada architecture whitepaper: BF16 and FP16 Tensor with FP32 accumulate 165.2, without sparsity
    "NVIDIA GeForce RTX 4090": 165.2,
}
"""Name of a device as CUDA tells it -> its published peak in bf16 and fp16. That of fp32 depends on whether TF32 is
allowed, so --peak-tflops gives it."""


def copy_bandwidth(device: torch.device, *, size: int | None = None) -> float:
    """Return the bytes per second that copying a large tensor reads and writes, at best of some rounds."""
    count = size or COPY_BYTES[device.type]
    source = torch.ones(count, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    rounds = take_turns([lambda: target.copy_(source)], rounds=COPY_ROUNDS, seconds=0.1, device=device)
    return rounds.rate(0, 2 * count).high


def device_name(device: torch.device) -> str:
    """Return the name of a GPU, or how many threads compute on the CPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {torch.get_num_threads()} threads"


def peak_flops(name: str, precision: BenchPrecision, *, given: float | None) -> float | None:
    """Return the peak of a device in operations per second: the given one, or the published one; None if unknown.

    Args:
        name: name of the device.
        precision: precision of the convolutions.
        given: peak in TFLOP/s that the user names.
    """
    published = None if precision == "fp32" else PEAK_TFLOPS.get(name)
    tflops = published if given is None else given
    return None if tflops is None else tflops * 1e12
