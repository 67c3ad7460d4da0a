"""Stochastic depth: in training, a residual is left out of whole samples."""

import torch.fx
from timm.layers import drop as timm_drop
from torch import Tensor


class DropPath(timm_drop.DropPath):
    """timm's layer of stochastic depth (arXiv 1603.09382), in a form that can be traced.

    In training each sample is zeroed with the chance ``drop_prob``, and otherwise divided by ``1 - drop_prob``; so the
    mean stays. At inference it is the identity. A graph that torchvision extracts from timm's own layer loses the
    division, which is in place. A traced graph keeps the mode, training or inference, in which it was traced.

    Shape:
        (N, ...) -> the same
    """

    def forward(self, x: Tensor) -> Tensor:
        """Zero samples if in training."""
        return drop_samples(x, self.drop_prob, training=self.training)


@torch.fx.wrap
def drop_samples(x: Tensor, probability: float, *, training: bool) -> Tensor:
    """Compute `DropPath` as one node of a graph that `torch.fx` traces.

    Shape:
        (N, ...) -> the same
    """
    return timm_drop.drop_path(x, probability, training)


def drop_path_rates(largest: float, depth: int) -> list[float]:
    """Return the chance of each of ``depth`` blocks, which grows linearly from 0 at the first to ``largest``."""
    return [largest * block / max(depth - 1, 1) for block in range(depth)]
