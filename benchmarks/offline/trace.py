"""Training step of a network as the two graphs that torch.compile makes of it, traced on the CPU and never run.

This and `benchmarks.offline.inductor` use internals of torch 2.14, the version in requirements.lock.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch._dynamo.exc import BackendCompilerFailed
from torch._functorch import config as autograd_config
from torch._inductor import config as inductor_config
from torch._inductor.compile_fx import compile_fx
from torch.fx import GraphModule, Node


@dataclass(frozen=True)
class Graph:
    """Graph that Inductor gets, with what it gets beside it."""

    module: GraphModule
    inputs: list[Any]
    options: dict[str, Any]
    """Keyword arguments of `torch._inductor.compile_fx.compile_fx_inner`."""

    @property
    def placeholders(self) -> list[Node]:
        """Return the nodes of the inputs."""
        return [node for node in self.module.graph.nodes if node.op == "placeholder"]


@dataclass
class Step:
    """Forward and backward graph of one training step."""

    graphs: list[Graph] = field(default_factory=list)

    @property
    def forward(self) -> Graph:
        """Return the graph that makes the loss's input and what backward needs."""
        return self.graphs[0]

    @property
    def backward(self) -> Graph:
        """Return the graph that makes the gradients."""
        return self.graphs[1]


class TraceError(RuntimeError):
    """Network that torch.compile does not turn into one forward and one backward graph."""


class _TracedError(Exception):
    """Signal that both graphs are there; it keeps torch from running them."""


def trace_step(network: nn.Module, images: Tensor, *, joint_passes: bool = True) -> Step:
    """Trace a training step under bfloat16 autocast, with all passes of torch.compile up to code generation.

    The min-cut partitioner has chosen what backward gets. Values are not computed, so a large batch costs nothing.

    Args:
        network: network in training mode, on the CPU.
        images: (N, 3, H, W), on the CPU.
        joint_passes: simplify the joint graph before the partitioner sees it, as torch.compile does.

    Raises:
        TraceError: the network has several graphs, or no gradient.
    """
    step = Step()
    torch.compiler.reset()
    compiled = torch.compile(network, backend=_record_in(step), fullgraph=True, dynamic=False)
    with (
        suppress(BackendCompilerFailed, _TracedError),
        autograd_config.patch(force_non_lazy_backward_lowering=True, enable_autograd_cache=False),
        inductor_config.patch(fx_graph_cache=False, use_joint_graph_passes=joint_passes),
        torch.autocast("cpu", torch.bfloat16),
    ):
        compiled(images)
    if len(step.graphs) != 2:
        raise TraceError(f"{type(network).__name__}: traced {len(step.graphs)} graphs, not forward and backward")
    return step


def _record_in(step: Step) -> Callable[[GraphModule, list[Any]], Any]:
    """Return a backend of torch.compile that stores the graphs in ``step`` instead of generating code."""

    def record(module: GraphModule, inputs: list[Any], **options: Any) -> Any:
        step.graphs.append(Graph(module, inputs, options))
        if options.get("is_backward"):
            raise _TracedError
        return lambda _: ()

    return lambda module, inputs: compile_fx(module, inputs, inner_compile=record)  # pyright: ignore[reportArgumentType]
