"""Whether the Triton kernels can run on this GPU."""

import importlib.util
import warnings

import torch

LEAST_CAPABILITY = (8, 0)
"""Compute capability of the oldest GPU for which the kernels are built and checked: A100."""


def is_available() -> bool:
    """Tell whether the kernels can run on the current GPU; warn once with the reason where they cannot."""
    if importlib.util.find_spec("triton") is None:
        return _refuse("Triton is not installed")
    capability = torch.cuda.get_device_capability()
    if capability < LEAST_CAPABILITY:
        name = f"{torch.cuda.get_device_name()} has compute capability {capability[0]}.{capability[1]}"
        return _refuse(f"{name}, below {LEAST_CAPABILITY[0]}.{LEAST_CAPABILITY[1]}")
    return True


def _refuse(reason: str) -> bool:
    warnings.warn(f"{reason}: batch normalization and shortcuts use slower torch operations", stacklevel=2)
    return False
