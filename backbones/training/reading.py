"""Reading of many values from the device in one wait."""

from collections.abc import Iterable, Sequence
from itertools import islice

import torch
from torch import Tensor


def read_device(parts: Sequence[Tensor | None]) -> list[list[float]]:
    """Return the values of each tensor, none for None, with one wait for the device for all of them.

    Shape:
        any -> as many numbers as each tensor has
    """
    sizes = [0 if part is None else part.numel() for part in parts]
    values = iter(torch.cat([part.float().flatten() for part in parts if part is not None]).tolist())
    return [list(islice(values, size)) for size in sizes]


def with_mean(values: Iterable[Tensor]) -> Tensor | None:
    """Return the mean of numbers on the device, and after it the numbers; None where there are none.

    Shape:
        n times () -> (1 + n,)
    """
    numbers = list(values)
    if not numbers:
        return None
    together = torch.stack(numbers)
    return torch.cat([together.mean()[None], together])


def join_micro_batches(losses: Sequence[float], parts: int) -> list[float]:
    """Return the mean loss of each step of ``parts`` micro-batches; the last one ends a step."""
    whole = losses[len(losses) % parts :]  # a resume may have changed their number
    return [sum(whole[first : first + parts]) / parts for first in range(0, len(whole), parts)]
