"""Exact counts of a training step in eager mode: operations, bytes kept for backward, bytes moved, operators called."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

FREE = frozenset(
    {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "_unsafe_view", "lift_fresh"}
)
"""Operators that neither read nor write a tensor's data, beside those that return views."""

PASSES = 3
"""Forward, gradients of the inputs, gradients of the weights. torch's own count of the two latter is wrong where
convolutions have groups."""

FEW = 2
"""Images of a counted step; BatchNorm over maps of 1x1 needs two."""


@dataclass(frozen=True)
class Counts:
    """Exact counts of a training step."""

    flops: int
    """Operations of convolutions and matrix products for an image, two for each multiply-add: three times those of
    forward, as is usual."""
    kept: int
    """Bytes that forward keeps for backward, for an image."""
    moved: int
    """Bytes of all inputs and outputs of operators, for an image."""
    moved_anyway: int
    """Bytes that move in a step of any size: weights, gradients and the optimizer's state."""
    operators: int
    """Operators of forward and backward that read or write data; on a GPU each launches at least one kernel."""


def count(step: Callable[[int], object], forward: Callable[[int], Tensor], network: nn.Module) -> Counts:
    """Count a step of two images and one of three; what does not grow with the batch is in both.

    Args:
        step: function that makes a training step of a number of images, and leaves no gradients.
        forward: function that returns the loss of a number of images.
        network: the network.
    """
    step(FEW)  # makes the state of the optimizer
    few, more = (count_traffic(partial(step, images)) for images in (FEW, FEW + 1))
    moved = more.moved - few.moved
    operators = count_traffic(lambda: forward(FEW).backward()).operators
    network.zero_grad()
    return Counts(
        flops=PASSES * count_flops(partial(forward, FEW)) // FEW,
        kept=count_kept(forward),
        moved=moved,
        moved_anyway=few.moved - FEW * moved,
        operators=operators,
    )


class TrafficCounter(TorchDispatchMode):
    """Sum of the bytes that operators take and return. Each input and output counts once, however often it is read."""

    def __init__(self) -> None:
        super().__init__()
        self.moved = 0
        """Bytes."""
        self.operators = 0
        """Operators that read or write data."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Call the operator and count its tensors."""
        result = func(*args, **(kwargs or {}))
        if not func.is_view and func.overloadpacket.__name__ not in FREE:
            self.moved += sum(tensor.nbytes for tensor in _distinct((args, kwargs))) + sum(
                tensor.nbytes for tensor in _distinct(result)
            )
            self.operators += 1
        return result


def _distinct(values: Any) -> list[Tensor]:
    """Return the tensors in a structure, each once."""
    return list({id(leaf): leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)}.values())


def count_traffic(step: Callable[[], object]) -> TrafficCounter:
    """Return the counter of what the operators of a step read and write."""
    with TrafficCounter() as counter:
        step()
    return counter


def count_flops(step: Callable[[], object]) -> int:
    """Return the operations of the convolutions and matrix products of a step, two for each multiply-add."""
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops()


def count_kept(forward: Callable[[int], Tensor]) -> int:
    """Return the bytes that forward keeps for backward for each further image.

    What does not grow with the batch, such as weights and statistics of channels, is left out: the count is the
    difference between three images and two.

    Args:
        forward: function that returns the loss of a number of images.
    """
    few, more = (_sum_kept(forward, images) for images in (FEW, FEW + 1))
    return more - few


def _sum_kept(forward: Callable[[int], Tensor], images: int) -> int:
    kept: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        return tensor

    with torch.enable_grad(), saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = forward(images)  # holds the graph, so that no storage is used twice
    total = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    del loss
    return total
