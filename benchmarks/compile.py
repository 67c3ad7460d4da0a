"""Gain of torch.compile: a compiled network against the same network in eager mode, in one run.

python -m benchmarks.compile [--model NAME] [--mode MODE] [--device cuda] [--json FILE]

A training step is forward and backward of one micro-batch, without optimizer, data and mixing; an evaluation is a
forward pass without gradients. Both networks get the same random images; one is compiled as in a run. The result is the
elapsed time until the device has finished. A ratio is compiled / eager in the same round: below 1, compiled is faster.

The seconds of the compilation are those of the first pass less those of the second, with an empty cache.
"""

import argparse
import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from tempfile import TemporaryDirectory
from typing import Any, get_args

import torch
from torch import nn

import backbones
from backbones.recipe import CompileMode
from backbones.training.compilation import compile_network, require_compiler
from benchmarks.harness import Clock, Costs, Result, compare, create_parser, gpu_seconds, measure, publish, wall_seconds

PAIR = ("eager", "compiled")
KINDS = ("training", "evaluation")
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


def measure_kinds(options: argparse.Namespace, device: torch.device, clock: Clock) -> tuple[Costs, dict[str, float]]:
    """Return the milliseconds of each network and kind of pass by round, and the seconds of each compilation."""
    both = {name: passes(options, network, device) for name, network in networks(options, device).items()}
    costs: Costs = {}
    compilation = {}
    for kind in KINDS:
        pair = {f"{kind}, {name}": each[kind] for name, each in both.items()}
        first, second = (clock(pair[f"{kind}, compiled"]) for _ in range(2))
        compilation[kind] = round(first - second, 1)
        costs |= measure(pair, rounds=options.rounds, repeats=options.turn, scale=1000, clock=clock)
    return costs, compilation


def parse() -> argparse.Namespace:
    parser = create_parser(__doc__ or "")
    parser.add_argument("--model", default="csresnext50_ws_mi2")
    parser.add_argument("--mode", choices=get_args(CompileMode), default="default")
    parser.add_argument("--batch-size", type=int, help="unset: 4 on a CPU, 128 on a GPU")
    parser.add_argument("--size", type=int, help="height and width of the images; unset: 128 on a CPU, 256 on a GPU")
    parser.add_argument("--precision", choices=["fp32", "bf16"], help="unset: fp32 on a CPU, bf16 on a GPU")
    parser.add_argument("--turn", type=int, default=3, help="passes of each turn")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    options = parser.parse_args()
    is_on_gpu = options.device == "cuda"
    options.batch_size = options.batch_size or (128 if is_on_gpu else 4)
    options.size = options.size or (256 if is_on_gpu else 128)
    options.precision = options.precision or ("bf16" if is_on_gpu else "fp32")
    return options


def main() -> None:
    options = parse()
    device = torch.device(options.device)
    torch.set_num_threads(1)
    require_compiler(options.mode, device)
    with TemporaryDirectory() as folder:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder
        costs, compilation = measure_kinds(options, device, gpu_seconds if device.type == "cuda" else wall_seconds)
    ratios = compare(costs, {f"{kind}, compiled / eager": (f"{kind}, compiled", f"{kind}, eager") for kind in KINDS})
    tables = {"Seconds to compile": [{"pass": kind, "seconds": value} for kind, value in compilation.items()]}
    publish(Result("Compilation", "ms per pass", costs, ratios, tables, setting=vars(options)), options.json)


if __name__ == "__main__":
    main()
