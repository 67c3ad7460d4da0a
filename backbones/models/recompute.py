"""Gradient checkpointing that updates running statistics once, although the module runs twice."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def recompute(module: nn.Module, *inputs: Tensor, **options: Any) -> Tensor:
    """Run ``module`` without keeping its activations; backward runs it again.

    Batch normalization updates its running statistics in the first run only. So training with and without
    checkpointing gives the same numbers.

    Shape:
        as for ``module``
    """

    def contexts() -> tuple[contextlib.AbstractContextManager, contextlib.AbstractContextManager]:
        return contextlib.nullcontext(), spare_statistics(module)

    if torch.compiler.is_compiling():
        # A compiled graph updates the statistics once in any case, and accepts no contexts.
        return checkpoint(module, *inputs, **options, use_reentrant=False)
    return checkpoint(module, *inputs, **options, use_reentrant=False, context_fn=contexts)


@contextlib.contextmanager
def spare_statistics(module: nn.Module) -> Iterator[None]:
    """Let every batch normalization in ``module`` write to copies of its running statistics.

    ``track_running_stats=False`` would not do, because autograd must save the same tensors in both runs.
    """
    norms = [norm for norm in module.modules() if isinstance(norm, _BatchNorm)]
    originals = [dict(norm.named_buffers(recurse=False)) for norm in norms]
    for norm, buffers in zip(norms, originals, strict=True):
        _set_buffers(norm, {name: buffer.clone() for name, buffer in buffers.items()})
    try:
        yield
    finally:
        for norm, buffers in zip(norms, originals, strict=True):
            _set_buffers(norm, buffers)


def _set_buffers(module: nn.Module, buffers: dict[str, Tensor]) -> None:
    for name, buffer in buffers.items():
        setattr(module, name, buffer)
