"""Arithmetic of a GPU: TF32 or not, and whether cuDNN measures its algorithms."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


def choose_arithmetic(device: torch.device, *, tf32: bool | None) -> None:
    """Set how a GPU computes; a CPU is left as it is.

    Convolutions of training take the fastest of cuDNN's algorithms, unless torch may use deterministic ones only:
    which one is the fastest differs from run to run.

    Args:
        device: of this process.
        tf32: let float32 products be computed in TF32, with 10 bits of mantissa; None leaves torch's own choice. This
            is as deterministic as float32, and bfloat16 and float16 do not change.
    """
    if device.type != "cuda":
        return
    torch.backends.cudnn.benchmark = not torch.are_deterministic_algorithms_enabled()
    if tf32 is not None:
        # The names of torch 2.9 and later would do, but Inductor still asks for the precision by these
        torch.set_float32_matmul_precision("high" if tf32 else "highest")
        torch.backends.cudnn.allow_tf32 = tf32


@contextmanager
def steady_algorithms() -> Iterator[None]:
    """Let cuDNN choose algorithms by a rule during the block, so that the same images give the same figures again."""
    before, torch.backends.cudnn.benchmark = torch.backends.cudnn.benchmark, False
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before
