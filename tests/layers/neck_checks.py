"""What every neck must do: keep the sizes of its levels, let every parameter learn, and have true gradients."""

from collections.abc import Sequence

import torch
from torch import nn


def require_sizes_and_learning(neck: nn.Module, levels: int, *, channels: int, width: int) -> None:
    """Check any row of levels of odd and even sizes."""
    features = [torch.randn(2, channels, -(-40 // 2**k), -(-24 // 2**k)) for k in range(levels)]
    results = neck(features)
    assert [r.shape for r in results] == [(2, width, *f.shape[2:]) for f in features]
    sum(r.square().sum() for r in results).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in neck.parameters())


def require_true_gradient(neck: nn.Module, sizes: Sequence[tuple[int, int]]) -> None:
    """Check the gradient of a neck for levels of two channels, in double precision, against differences."""
    neck = neck.double().eval()
    inputs = [torch.randn(1, 2, *size, dtype=torch.double, requires_grad=True) for size in sizes]
    assert torch.autograd.gradcheck(lambda *maps: tuple(neck(maps)), inputs)
