"""Two processes over gloo with a compiled network: the order of backward passes and all-reduces, and the gradients.

Run by tests/training/test_compilation.py. Arguments: plain, checkpointing or unsplit; a JSON file for what rank 0 saw.
"""

import copy
import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from functorch.compile import make_boxed_func
from torch import Tensor, nn
from torch._dynamo.backends.common import aot_autograd
from torch._dynamo.utils import counters
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from backbones.training import compilation
from backbones.training.compilation import compile_network, split_at_buckets

RANKS, MICRO_BATCHES, STEPS, WIDTH = 2, 2, 3, 128


class Network(nn.Module):
    """Eight convolutions of 0.6 MB each, so that there are four buckets of 1 MB."""

    def __init__(self, *, checkpointing: bool) -> None:
        super().__init__()
        widths = [3] + [WIDTH] * 7
        self.layers = nn.ModuleList(nn.Conv2d(width, WIDTH, 3, padding=1) for width in widths)
        self.checkpointing = checkpointing

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = checkpoint(layer, x, use_reentrant=False) if self.checkpointing else layer(x)
            x = torch.tanh(x)
        return x


def noting_backend(events: list[str]) -> Callable[..., Any]:
    """Return a backend whose backward passes note when they end."""

    def compile_backward(graph: Any, _inputs: Any) -> Any:
        def run(*inputs: Any) -> Any:
            result = graph(*inputs)
            events.append("backward")
            return result

        return make_boxed_func(run)

    def compile_forward(graph: Any, _inputs: Any) -> Any:
        return make_boxed_func(graph.forward)

    return aot_autograd(fw_compiler=compile_forward, bw_compiler=compile_backward)


def images() -> Iterator[Tensor]:
    """Yield the micro-batches of this rank."""
    generator = torch.Generator().manual_seed(dist.get_rank())
    while True:
        yield torch.rand(2, 3, 4, 4, generator=generator)


def loss_of(network: nn.Module, batch: Tensor) -> Tensor:
    return network(batch).square().mean() / MICRO_BATCHES


def train(wrapped: DistributedDataParallel, batches: Iterator[Tensor], events: list[str]) -> list[list[str]]:
    """Return the events of each micro-batch; the gradients are those of the last step."""
    seen = []
    for _ in range(STEPS):
        wrapped.zero_grad()
        for micro_batch in range(MICRO_BATCHES):
            events.clear()
            with wrapped.no_sync() if micro_batch < MICRO_BATCHES - 1 else nullcontext():
                loss_of(wrapped, next(batches)).backward()
            seen.append(list(events))
    return seen


def mean_gradients(network: nn.Module, batches: Iterator[Tensor]) -> list[Tensor]:
    """Return the gradients of an eager network in the last step, the mean of all ranks."""
    for _ in range(STEPS):
        network.zero_grad()
        for _ in range(MICRO_BATCHES):
            loss_of(network, next(batches)).backward()
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    for gradient in gradients:
        dist.all_reduce(gradient)
    return [gradient / RANKS for gradient in gradients]


def run(rank: int, kind: str, file: str, meeting: str) -> None:
    warnings.simplefilter("ignore")
    dist.init_process_group("gloo", rank=rank, world_size=RANKS, init_method=f"file://{meeting}")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    events: list[str] = []
    eager = Network(checkpointing=kind == "checkpointing")
    compiled = copy.deepcopy(eager)
    compilation.BACKEND = noting_backend(events)  # type: ignore[assignment]
    split_at_buckets(grad_checkpointing=kind == "unsplit" or eager.checkpointing)
    torch._dynamo.config.optimize_ddp &= kind != "unsplit"
    compile_network(compiled, "default", torch.device("cpu"))
    wrapped = DistributedDataParallel(compiled, bucket_cap_mb=1, broadcast_buffers=False, gradient_as_bucket_view=True)

    def reduce(_state: object, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:
        events.append(f"bucket{bucket.index()}")
        future = dist.all_reduce(bucket.buffer(), async_op=True).get_future()  # type: ignore[union-attr]
        return future.then(lambda done: done.value()[0] / RANKS)

    wrapped.register_comm_hook(None, reduce)
    seen = train(wrapped, images(), events)
    graphs = [counters["stats"]["unique_graphs"]]
    with torch.no_grad():
        compiled.eval()(next(images()))
    graphs.append(counters["stats"]["unique_graphs"])
    expected = mean_gradients(eager, images())
    found = [p.grad for p in compiled.parameters() if p.grad is not None]
    error = max(float((a - b).norm() / b.norm()) for a, b in zip(found, expected, strict=True))
    if rank == 0:
        Path(file).write_text(json.dumps({"events": seen, "error": error, "graphs": graphs}))
    dist.destroy_process_group()


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    mp.spawn(run, (*sys.argv[1:3], f"{mkdtemp()}/meeting"), RANKS)  # type: ignore[attr-defined]
