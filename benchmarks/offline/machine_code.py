"""Registers, spills and width of global accesses of our Triton kernels, compiled for GPUs that are not there.

python -m benchmarks.offline.machine_code [--small] [--json FILE]

The launchers of `backbones.layers.kernels.launch` are called as for a step of the networks, with bfloat16 maps. It ends
with status 1 where a kernel spills registers, or where a kernel that reads maps has no 128-bit load or store.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from backbones.layers.kernels import launch
from benchmarks.offline.commit import find_commit
from benchmarks.offline.cubins import ARCHITECTURES, Binary, compile_launches

VECTOR_KERNELS = ("combine_parts", "combine_rows", "write_shares", "write_share_gradients")
"""Kernels that read no maps, but a few rows of single precision."""


@dataclass(frozen=True)
class Layer:
    """Normalization, activation and merge as a network has them."""

    channels: int
    act: str
    out_act: str = "linear"
    others: int = 0
    shares: bool = False
    kind: str = "sum"


SMALL = {
    "convolution, mish": Layer(128, "mish"),
    "block of csresnext50": Layer(256, "linear", "mish", others=1),
    "block of csresnext50_ws_mi2": Layer(256, "linear", "mish", others=3, shares=True),
}
LAYERS = SMALL | {
    "convolution, mish, 64 channels": Layer(64, "mish"),
    "convolution, mish, 2048 channels": Layer(2048, "mish"),
    "convolution, leaky": Layer(128, "leaky"),
    "convolution, swish": Layer(128, "swish"),
    "convolution, prelu": Layer(128, "prelu"),
    "convolution, linear": Layer(128, "linear"),
    "block of csresnext50_ws": Layer(512, "linear", "mish", others=1, shares=True),
    "block of csdarknet53": Layer(256, "mish", others=1),
    "block of csdarknet53_ws": Layer(256, "mish", others=1, shares=True),
    "block of csdarknet53_omega_mi, 8 inputs": Layer(256, "mish", others=7, shares=True),
    "maximum of two": Layer(128, "linear", others=1, kind="max"),
}


def compile_layer(layer: Layer, architecture: int) -> list[Binary]:
    """Compile every kernel of a training step of one layer."""
    x, gradient = _map(layer.channels), _map(layer.channels)

    def step() -> None:
        running = torch.zeros(2, layer.channels).unbind()
        mean, var = launch.batch_statistics(x, 1, *running, torch.tensor(0), 0.9, 0.1)
        arguments = _arguments(layer, x, mean, var)
        launch.norm_merge(*arguments)
        launch.norm_merge_backward(gradient, *arguments)

    return compile_launches(step, architecture)


def compile_pool(architecture: int) -> list[Binary]:
    """Compile the kernels of the max pool."""

    def step() -> None:
        largest, place = launch.max_pool_2x2(_map(64))
        launch.max_pool_2x2_backward(largest, place, 16, 16)

    return compile_launches(step, architecture)


def compile_shares(architecture: int) -> list[Binary]:
    """Compile the kernels of the shares, one weight for each input and one for each channel."""

    def step() -> None:
        for columns, normalization in ((1, "softmax"), (256, "relu")):
            weights = [torch.zeros(inputs, columns) for inputs in (2, 3, 4)]
            launch.fusion_shares(weights, normalization, 1e-3)
            launch.fusion_shares_backward(weights, weights, normalization, 1e-3, "true")

    return compile_launches(step, architecture)


def _arguments(layer: Layer, x: Tensor, mean: Tensor, var: Tensor) -> tuple[Any, ...]:
    row = torch.zeros(layer.channels)
    slopes = row if layer.act == "prelu" else None
    others = [_map(layer.channels) for _ in range(layer.others)]
    shares = torch.zeros(1 + layer.others, 1) if layer.shares else None
    inner, outer = (layer.act, 0.1, slopes), (layer.out_act, 0.1, None)
    return x, mean, var, row, row, 1e-5, *inner, others, shares, layer.kind, *outer


def _map(channels: int) -> Tensor:
    return torch.zeros(16, channels, 16, 16, dtype=torch.bfloat16).to(memory_format=torch.channels_last)


def compile_all(layers: dict[str, Layer], architectures: tuple[int, ...]) -> Iterator[tuple[str, Binary]]:
    """Yield each kernel with the name of its layer."""
    for architecture in architectures:
        for name, layer in layers.items():
            yield from ((name, binary) for binary in compile_layer(layer, architecture))
        yield from (("max pool", binary) for binary in compile_pool(architecture))
        yield from (("shares", binary) for binary in compile_shares(architecture))


def find_faults(binary: Binary) -> list[str]:
    """Return what is wrong with a kernel."""
    faults = [f"{binary.spills} spills, {binary.stack} bytes of stack"] if binary.spills or binary.stack else []
    if binary.kernel in VECTOR_KERNELS:
        return faults
    return faults + (["no 128-bit access"] if not binary.wide_loads + binary.wide_stores else [])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="few layers, for one architecture")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here")
    options = parser.parse_args()
    rows, is_faulty = [], False
    for name, binary in compile_all(*((SMALL, (90,)) if options.small else (LAYERS, ARCHITECTURES))):
        rows.append({"layer": name, **asdict(binary)})
        faults = find_faults(binary)
        is_faulty |= bool(faults)
        accesses = f"{binary.wide_loads}/{binary.wide_stores} wide, {binary.narrow_loads}/{binary.narrow_stores} narrow"
        usage = f"sm_{binary.architecture} {binary.registers:3} registers, loads/stores: {accesses}"
        print(f"{name:40} {binary.kernel:16} {usage}", *(f"FAULT: {fault}" for fault in faults), flush=True)
    if options.json:
        versions = {package: version(package) for package in ("torch", "triton")}
        table = ",\n  ".join(map(json.dumps, rows))
        text = f'{{"versions": {json.dumps(versions)}, "commit": "{find_commit()}", "kernels": [\n  {table}\n]}}\n'
        options.json.write_text(text)
    sys.exit(is_faulty)


if __name__ == "__main__":
    main()
