"""Exact counts of a training step in eager mode: operations, bytes kept for backward, bytes moved, kernels launched."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from backbones.counting import StepCounter, kept_bytes
from backbones.layers.recomputed.operators import LAUNCHES

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
    launches: int
    """Kernels that forward and backward launch on a GPU, where each of torch's operators is one."""


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
    launches = count_traffic(lambda: forward(FEW).backward()).launches
    network.zero_grad()
    return Counts(
        flops=PASSES * count_flops(partial(forward, FEW)) // FEW,
        kept=count_kept(forward),
        moved=moved,
        moved_anyway=few.moved - FEW * moved,
        launches=launches,
    )


def count_traffic(step: Callable[[], object]) -> StepCounter:
    """Return the counter of what the operators of a step read, write and launch."""
    with StepCounter(launches_of=LAUNCHES) as counter:
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
    few, more = (_keep(forward, images) for images in (FEW, FEW + 1))
    return more - few


def _keep(forward: Callable[[int], Tensor], images: int) -> int:
    with torch.enable_grad():
        return kept_bytes(lambda: forward(images), ())
