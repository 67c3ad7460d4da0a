"""DropBlock: in training, whole squares of a feature map are set to zero, with a strength that grows."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.fx
import torch.nn.functional as F
from torch import Tensor, nn

from backbones.choices import DropBlockKind
from backbones.rules import require_drop_block


class DropBlock2d(nn.Module):
    """Layer that zeroes squares of its input in training, and is the identity at inference.

    Probability and size follow the progress of the training, a number from 0 to 1. The trainer sets it with
    `set_drop_block_progress`; until then it is 1, the full strength. Random numbers come from torch's generator. A
    graph traced by `torch.fx` keeps the mode, training or inference, in which it was traced.

    Args:
        probability: share of cells to drop at full strength.
        block_size: height and width of a square in cells, at most the size of the map.
        relative_size: size of a square as a share of the map's shorter side, in place of ``block_size``.
        kind: ``darknet``: at most one square in each channel, one scale for each sample; probability and size grow
            over the first 85 % of the training (see `drop_block_2d`). ``paper``: any number of squares, one scale for
            the batch; only the probability grows, over the whole training (see `paper_drop_block_2d`).

    Shape:
        (N, C, H, W) -> the same

    Raises:
        ValueError: the probability is outside [0, 1), the size below 1, the share outside (0, 1], or the kind unknown.
    """

    progress: Tensor

    def __init__(
        self,
        probability: float = 0.1,
        block_size: int = 7,
        *,
        relative_size: float | None = None,
        kind: DropBlockKind = "darknet",
    ) -> None:
        super().__init__()
        require_drop_block(probability, block_size, kind)
        if relative_size is not None and not 0 < relative_size <= 1:
            raise ValueError(f"relative_size={relative_size} must lie in (0, 1]")
        self.probability = probability
        self.block_size = block_size
        self.relative_size = relative_size
        self.kind: DropBlockKind = kind
        # A tensor, so that a compiled network is not compiled again at each step. It is not part of a checkpoint.
        self.register_buffer("progress", torch.ones(()), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Drop squares if in training."""
        return drop_random_squares(
            x,
            self.progress,
            training=self.training,
            probability=self.probability,
            block_size=self.block_size,
            relative_size=self.relative_size,
            kind=self.kind,
        )

    def extra_repr(self) -> str:
        """Show the options in ``print(model)``."""
        size = self.block_size if self.relative_size is None else f"{self.relative_size} of the shorter side"
        return f"probability={self.probability}, block_size={size}, kind={self.kind}"


@torch.fx.wrap
def drop_random_squares(
    x: Tensor,
    progress: Tensor,
    *,
    training: bool,
    probability: float,
    block_size: int,
    relative_size: float | None,
    kind: DropBlockKind,
) -> Tensor:
    """Compute `DropBlock2d` with random numbers from torch's generator.

    It is one node of a graph that `torch.fx` traces: the graph draws new numbers in each call and reads the progress.

    Shape:
        x (N, C, H, W), progress () -> (N, C, H, W)
    """
    if not training:
        return x
    rule = _RULES[kind]
    ramp = drop_block_ramp(progress, rule.ramp)
    size = block_size if relative_size is None else relative_size * min(x.shape[2:])
    random = torch.rand(x.shape, device=x.device)
    return rule.drop(x, random, probability * ramp, size * (ramp if rule.size_grows else 1))


def set_drop_block_progress(model: nn.Module, progress: float) -> None:
    """Set the share of the training that is done, from 0 to 1, in every `DropBlock2d` of ``model``."""
    for module in model.modules():
        if isinstance(module, DropBlock2d):
            module.progress.fill_(progress)


def drop_block_ramp(progress: Tensor, share: float) -> Tensor:
    """Return the strength, which grows linearly from 0 to 1 over the first ``share`` of the training.

    Shape:
        () -> ()
    """
    return (progress / share).clamp(0, 1)


def drop_block_2d(x: Tensor, random: Tensor, probability: Tensor | float, block_size: Tensor | float) -> Tensor:
    """Zero at most one square in each channel and scale up the rest of the sample: darknet's rule.

    Each cell starts a square with the chance ``probability / size^2``; in each channel only the cell with the smallest
    random number may. The cell is the upper left corner of the square. If the square would cross the lower or right
    edge, its corner moves up or left by the length of the map minus the size. Each sample is multiplied by its number
    of cells divided by the number of cells left, counted over all channels.

    Args:
        x: feature maps.
        random: uniform numbers in [0, 1), one for each cell.
        probability: chance to drop a cell.
        block_size: height and width of a square; rounded down, then at least 1 and at most H and W.

    Shape:
        x (N, C, H, W), random (N, C, H, W) -> (N, C, H, W)
    """
    size = _clamp_size(block_size, x)
    dropped, cells = _mark_squares(random, probability, size), x[0].numel()
    left = cells - size**2 * dropped.flatten(2).any(2).sum(1)
    scale = cells / left.clamp(min=1)
    return x * (~dropped * scale[:, None, None, None]).to(x.dtype)


def paper_drop_block_2d(x: Tensor, random: Tensor, probability: Tensor | float, block_size: float) -> Tensor:
    """Zero squares around any number of cells and scale up the batch: DropBlock, arXiv 1810.12890, algorithm 1.

    Each cell where a whole square fits starts one with the chance ``probability / size^2``, divided by the share of
    such cells. The result is multiplied by the number of cells divided by the number of cells left, counted over the
    batch.

    Shape:
        x (N, C, H, W), random (N, C, H, W) -> (N, C, H, W)
    """
    height, width = x.shape[2:]
    size = max(1, min(int(block_size), height, width))
    rows, columns = height - size + 1, width - size + 1
    chance = probability / size**2 * (height * width) / (rows * columns)
    starts = (random[:, :, :rows, :columns] < chance).to(x.dtype)
    kept = 1 - F.max_pool2d(F.pad(starts, (size - 1,) * 4), size, stride=1)
    scale = kept.numel() / kept.sum(dtype=torch.float32).clamp(min=1)
    return x * kept * scale.to(x.dtype)


@dataclass(frozen=True)
class _Rule:
    drop: Callable[..., Tensor]
    ramp: float
    """Share of the training over which the strength grows."""
    size_grows: bool
    """The size of the squares grows as well."""


_RULES: dict[DropBlockKind, _Rule] = {
    "darknet": _Rule(drop_block_2d, 0.85, size_grows=True),
    "paper": _Rule(paper_drop_block_2d, 1.0, size_grows=False),
}


def _clamp_size(block_size: Tensor | float, x: Tensor) -> Tensor:
    size = torch.as_tensor(block_size, device=x.device)
    return size.to(torch.int64).clamp(1, min(x.shape[2:]))


def _mark_squares(random: Tensor, probability: Tensor | float, size: Tensor) -> Tensor:
    """Return a mask of the dropped cells, (N, C, H, W)."""
    height, width = random.shape[2:]
    smallest, cell = random.flatten(2).min(2)
    rows = _mark_span(cell // width, size, height) & (smallest < probability / size**2)[..., None]
    return rows[..., :, None] & _mark_span(cell % width, size, width)[..., None, :]


def _mark_span(start: Tensor, size: Tensor, length: int) -> Tensor:
    """Return a mask of the cells that squares at ``start`` cover along one axis: (N, C) -> (N, C, length)."""
    last = length - size
    first = torch.minimum(torch.where(start > last, start - last, start), last)[..., None]
    cells = torch.arange(length, device=start.device)
    return (cells >= first) & (cells < first + size)
