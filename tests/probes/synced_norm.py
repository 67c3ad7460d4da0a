"""Run in two processes by test_batch_norm.py: one step of a synchronized normalization on this rank's half of a batch.

Arguments: rank, number of ranks, folder. Rank R writes rank<R>.pt.
"""

import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from backbones.layers import ConvNormAct, WeightedShortcut
from backbones.layers.batch_norm import sync_batch_norm
from backbones.layers.norm_act import Unmerged
from backbones.models.recompute import recompute


class Network(nn.Module):
    """Two normalizations: one that is merged into a weighted sum, and one alone, that runs twice if asked to."""

    def __init__(self, *, checkpointed: bool) -> None:
        super().__init__()
        self.first = ConvNormAct(3, 6, kernel=3, act="linear")
        self.shortcut = WeightedShortcut((6, 3), weights_type="per_channel", normalization="softmax", act="mish")
        self.second = ConvNormAct(6, 4, kernel=1, act="swish")
        self.checkpointed = checkpointed

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        unmerged = self.first.convolve(x)
        assert isinstance(unmerged, Unmerged)
        y = self.shortcut(unmerged, x)
        return recompute(self.second, y) if self.checkpointed else self.second(y)


def report(start: int, end: int, *, checkpointed: bool = False, synced: bool = True) -> dict[str, Any]:
    """Return result, gradients and statistics of a step on images ``start`` to ``end`` of a batch of 4."""
    torch.manual_seed(0)
    network = Network(checkpointed=checkpointed).double().train()
    if synced:
        sync_batch_norm(network)
    images, gradient = torch.randn(4, 3, 5, 4).double() * 3 + 1, torch.randn(4, 4, 5, 4).double()
    x = images[start:end].requires_grad_()
    y = network(x)
    y.backward(gradient[start:end])
    gradients = {name: parameter.grad for name, parameter in network.named_parameters()}
    return {"y": y.detach(), "x": x.grad, "parameters": gradients, "buffers": dict(network.named_buffers())}


def main(rank: int, ranks: int, folder: str) -> None:
    """Join the other ranks and write what this one computes."""
    store = dist.FileStore(f"{folder}/store", ranks)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=ranks, timeout=timedelta(seconds=120))
    count = 4 // ranks
    kinds = {kind: report(rank * count, (rank + 1) * count, checkpointed=kind == "twice") for kind in ("once", "twice")}
    torch.save(kinds, Path(folder) / f"rank{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
