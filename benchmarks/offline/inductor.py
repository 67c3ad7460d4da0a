"""Kernels, launches and bytes of a training step, from the code that Inductor generates for an H100.

python -m benchmarks.offline.inductor NETWORK prints the figures of one network as JSON.
"""

import argparse
import json
import re
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch._guards import TracingContext, tracing
from torch._inductor import config
from torch._inductor.compile_fx import compile_fx_inner
from torch._inductor.exc import InductorError
from torch._inductor.graph import GraphLowering
from torch._inductor.scheduler import BaseSchedulerNode
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx import GraphModule
from torch.fx.node import map_aggregate
from torch.utils._pytree import tree_map

from benchmarks.offline.networks import CONTENDERS, create_images
from benchmarks.offline.pretend_gpu import pretend_gpu
from benchmarks.offline.trace import Graph, trace_step

BATCH = 128
"""Images of the step: so many that the weights are a small part of the bytes."""

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


@dataclass(frozen=True)
class Cost:
    """Work of one graph on the GPU."""

    triton_launches: int
    """Launches of generated kernels."""
    library_calls: int
    """Calls of other operators: convolutions, matrix products, pooling. Each launches one kernel or more."""
    kernels: int
    """Different generated kernels."""
    moved: int
    """Bytes read and written, where each launch reads its inputs once and writes its outputs once."""

    @property
    def launches(self) -> int:
        """Return launches and calls together."""
        return self.triton_launches + self.library_calls


def count_graph(graph: Graph) -> Cost:
    """Generate the code of one graph for an H100 and count what it does."""
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    module = move_to_gpu(graph.module, mode)
    inputs = [_place(value, mode) for value in graph.inputs]
    costs: list[Cost] = []
    with (
        pretend_gpu(),
        mode,
        tracing(TracingContext(mode)),
        config.patch({"fx_graph_cache": False, "compile_threads": 1, "triton.cudagraphs": False}),
        mock.patch.object(GraphLowering, "compile_to_module", _count_into(costs)),
    ):
        _generate(module, inputs, graph.options, costs)
    return costs[0]


def _generate(module: GraphModule, inputs: list[Any], options: dict[str, Any], costs: list[Cost]) -> None:
    try:
        compile_fx_inner(module, inputs, **options)
    except InductorError:
        if not costs:  # else it wraps the signal
            raise


class _CountedError(Exception):
    """Signal that the code is there; it keeps Inductor from loading it."""


def _count_into(costs: list[Cost]) -> Callable[[GraphLowering], Any]:
    def compile_to_module(lowering: GraphLowering) -> Any:
        source, _ = lowering.codegen()
        costs.append(count_source(source.value, lowering.scheduler.nodes))
        raise _CountedError

    return compile_to_module


def count_source(source: str, nodes: Iterable[BaseSchedulerNode]) -> Cost:
    """Count the calls in generated code, and the bytes of its nodes."""
    return Cost(
        triton_launches=len(re.findall(r"^ +\w+\.run\(", source, re.MULTILINE)),
        library_calls=len(re.findall(r"^ +(?:\w+ = )?(?:extern_kernels|torch\.ops|aten)\.", source, re.MULTILINE)),
        kernels=len(re.findall(r"^\w+ = async_compile\.triton\(", source, re.MULTILINE)),
        moved=sum(node.get_read_write_buffers_sizes() for node in nodes),
    )


def move_to_gpu(module: GraphModule, mode: FakeTensorMode) -> GraphModule:
    """Change the device of a graph in place: of its arguments, and of the tensors that describe its nodes."""
    for node in module.graph.nodes:
        node.args = map_aggregate(node.args, _replace_device)
        node.kwargs = map_aggregate(node.kwargs, _replace_device)
        if "val" in node.meta:
            node.meta["val"] = tree_map(lambda value: _place(value, mode), node.meta["val"])
    module.recompile()
    return module


def _replace_device(value: Any) -> Any:
    return GPU if isinstance(value, torch.device) and value == CPU else value


def _place(value: Any, mode: FakeTensorMode) -> Any:
    if not isinstance(value, Tensor):
        return value
    with mode:
        return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=GPU)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", choices=CONTENDERS, metavar="NETWORK", help=", ".join(CONTENDERS))
    name = parser.parse_args().network
    step = trace_step(CONTENDERS[name].create(), create_images(BATCH))
    parts = {part: asdict(count_graph(graph)) for part, graph in zip(("forward", "backward"), step.graphs, strict=True)}
    print(json.dumps({"network": name, "batch": BATCH, **parts}))


if __name__ == "__main__":
    main()
