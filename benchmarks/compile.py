"""Gain of torch.compile: a compiled network against the same network in eager mode, in one run.

python benchmarks/compile.py [--model NAME] [--mode MODE] [--device cuda] [--json FILE]

A training step is forward and backward of one micro-batch, without optimizer, data and mixing; an evaluation is a
forward pass without gradients. Both networks get the same random images; one is compiled as in a run. They take turns
(A B B A) in each round; a turn is several passes. The first round is a warm-up and is dropped. The result is the
elapsed time until the device has finished. A ratio is compiled / eager in the same round: below 1, compiled is faster.

The seconds of the compilation are those of the first pass less those of the second, with an empty cache.
"""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import date
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

import torch
from torch import nn

import backbones
from backbones.recipe import CompileMode
from backbones.training.compilation import compile_network, require_compiler

PACKAGES = ("torch", "timm")
PAIR = ("eager", "compiled")
Pass = Callable[[], None]


def networks(options: argparse.Namespace, device: torch.device) -> dict[str, nn.Module]:
    """Return two networks with the same weights, one of which is compiled."""
    pair = {}
    for name in PAIR:
        torch.manual_seed(0)
        network = backbones.create_model(options.model).to(device, memory_format=torch.channels_last)
        compile_network(network, options.mode if name == "compiled" else False, device)
        pair[name] = network
    return pair


def precision(options: argparse.Namespace, device: torch.device) -> AbstractContextManager[Any]:
    return torch.autocast(device.type, torch.bfloat16) if options.precision == "bf16" else nullcontext()


def passes(options: argparse.Namespace, network: nn.Module, device: torch.device) -> dict[str, Pass]:
    """Return the functions that make one training step and one evaluation of a batch."""
    shape = (options.batch_size, 3, options.size, options.size)
    images = torch.rand(shape, device=device).contiguous(memory_format=torch.channels_last)
    labels = torch.zeros(options.batch_size, dtype=torch.int64, device=device)

    def train() -> None:
        network.train()
        with precision(options, device):
            logits = network(images)
        nn.functional.cross_entropy(logits.float(), labels).backward()
        network.zero_grad()

    @torch.inference_mode()
    def evaluate() -> None:
        network.eval()
        with precision(options, device):
            network(images)

    return {"training": train, "evaluation": evaluate}


def seconds(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def turn(run: Pass, device: torch.device, count: int) -> float:
    """Return the milliseconds of one pass."""
    before = seconds(device)
    for _ in range(count):
        run()
    return 1000 * (seconds(device) - before) / count


def measure(options: argparse.Namespace, pair: dict[str, Pass], device: torch.device) -> dict[str, list[float]]:
    """Return the milliseconds of each, the mean of two turns, in each round except the first."""
    milliseconds: dict[str, list[float]] = {name: [] for name in PAIR}
    for _ in range(options.rounds + 1):
        turns = [(name, turn(pair[name], device, options.turn)) for name in (*PAIR, *reversed(PAIR))]
        for name, values in milliseconds.items():
            values.append(statistics.mean(spent for other, spent in turns if other == name))
    return {name: values[1:] for name, values in milliseconds.items()}


def spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def compare(options: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """Return times, ratios and the seconds of the compilation by kind of pass."""
    both = {name: passes(options, network, device) for name, network in networks(options, device).items()}
    rows = {}
    for kind in ("training", "evaluation"):
        pair = {name: each[kind] for name, each in both.items()}
        first, second = (turn(pair["compiled"], device, 1) for _ in range(2))
        milliseconds = measure(options, pair, device)
        ratios = [b / a for a, b in zip(*(milliseconds[name] for name in PAIR), strict=True)]
        rows[kind] = {name: spread(values) for name, values in milliseconds.items()} | {
            "compiled / eager": spread(ratios),
            "seconds of compilation": round((first - second) / 1000, 1),
        }
    return rows


def show(options: argparse.Namespace, rows: dict[str, Any]) -> None:
    print(
        f"{options.model}, mode {options.mode}, {options.batch_size} images of {options.size} px, {options.precision}"
    )
    print(f"{'':28s}  median     min     max")
    for kind, row in rows.items():
        for name in PAIR:
            print(f"{kind + ', ' + name + ', ms':28s}  {row[name]['median']:6.1f}  " + range_of(row[name], 1))
        ratio = row["compiled / eager"]
        print(f"{kind + ', compiled / eager':28s}  {ratio['median']:6.2f}  {range_of(ratio, 2)}")
        print(f"{kind + ', s to compile':28s}  {row['seconds of compilation']:6.1f}")


def range_of(row: dict[str, float], digits: int) -> str:
    return f"{row['min']:6.{digits}f}  {row['max']:6.{digits}f}"


def describe(options: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """Return setting, machine, versions and date."""
    return {
        "setting": {name: value for name, value in vars(options).items() if name != "json"},
        "machine": {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()}
        | ({"gpu": torch.cuda.get_device_name()} if device.type == "cuda" else {}),
        "threads": torch.get_num_threads(),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
        "date": date.today().isoformat(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="csresnext50_ws_mi2")
    parser.add_argument("--mode", choices=get_args(CompileMode), default="default")
    parser.add_argument("--batch-size", type=int, help="unset: 4 on a CPU, 128 on a GPU")
    parser.add_argument("--size", type=int, help="height and width of the images; unset: 128 on a CPU, 256 on a GPU")
    parser.add_argument("--precision", choices=["fp32", "bf16"], help="unset: fp32 on a CPU, bf16 on a GPU")
    parser.add_argument("--turn", type=int, default=3, help="passes of each turn")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    options = parser.parse_args()
    device = torch.device(options.device)
    is_on_gpu = device.type == "cuda"
    options.batch_size = options.batch_size or (128 if is_on_gpu else 4)
    options.size = options.size or (256 if is_on_gpu else 128)
    options.precision = options.precision or ("bf16" if is_on_gpu else "fp32")
    torch.set_num_threads(1)
    require_compiler(options.mode, device)
    with TemporaryDirectory() as folder:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder
        rows = compare(options, device)
    show(options, rows)
    if options.json:
        options.json.write_text(json.dumps({"rows": rows, **describe(options, device)}, indent=2) + "\n")


if __name__ == "__main__":
    main()
