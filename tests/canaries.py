"""Tensors between canaries, which show a kernel that reads or writes outside of a tensor.

Triton's interpreter checks no bounds: a kernel that reads past the end of a tensor gets what is there. Around the
inputs that is NaN, which spoils a result. Around memory for results it is a number, since a kernel that reads NaN
outside of an input and writes it outside of a result would leave NaN there.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

MARGIN = 1 << 14
"""Canaries before and after a tensor. A kernel that is wrong by one block must not leave them."""

NUMBER = 113
"""Canary of integers, which have no NaN, and around results."""

_ALLOCATIONS = {
    torch.ops.aten.empty.memory_format,
    torch.ops.aten.empty_like.default,
    torch.ops.aten.empty_strided.default,
    torch.ops.aten.new_empty.default,
}


@dataclass(frozen=True)
class Fenced:
    """Tensor that is a view into a larger buffer of canaries."""

    tensor: Tensor
    """Shape: that of the tensor that was fenced, with its strides and values."""
    buffer: Tensor
    """Shape: (elements,)."""
    canary: float
    """NaN or a number."""
    inside: Tensor
    """Whether an element of the buffer is one of the tensor's. Shape: (elements,) bool."""

    def is_intact(self) -> bool:
        """Return whether every canary is still there."""
        outside = self.buffer[~self.inside]
        return bool((outside.isnan() if math.isnan(self.canary) else outside == self.canary).all())


def fence(tensor: Tensor, margin: int = MARGIN, canary: float = torch.nan) -> Fenced:
    """Copy a tensor into a buffer of canaries.

    They are before it, after it and, where its strides leave gaps (some channels of a wider tensor), in the gaps.
    """
    reach = 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    canary = canary if tensor.is_floating_point() else NUMBER
    buffer = torch.full((reach + 2 * margin,), canary, dtype=tensor.dtype)
    inside = torch.zeros(buffer.shape, dtype=torch.bool)
    place = tensor.shape, tensor.stride(), margin
    inside.as_strided(*place).fill_(True)
    return Fenced(buffer.as_strided(*place).copy_(tensor), buffer, canary, inside)


@contextmanager
def fence_allocations() -> Iterator[list[Fenced]]:
    """Fence every tensor that is allocated without values inside the context, and yield the list of them.

    They hold NaN, so an element that nobody writes is NaN.
    """
    fences: list[Fenced] = []

    class Allocator(TorchDispatchMode):
        def __torch_dispatch__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = func(*args, **(kwargs or {}))
            if func not in _ALLOCATIONS or result.numel() == 0:
                return result
            result.fill_(torch.nan if result.is_floating_point() else NUMBER)
            fences.append(fence(result, canary=NUMBER))
            return fences[-1].tensor

    with Allocator():
        yield fences
