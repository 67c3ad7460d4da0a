"""Shortcut between maps of different sizes, as darknet's ResNets have it (pjreddie/darknet, ``shortcut_cpu``)."""

import torch
import torch.fx
from torch import Tensor, nn

from backbones.layers.activation import ActivationName, create_activation


class StridedShortcut(nn.Module):
    """Sum of a map and an earlier map of another size or width, then an activation. It has no parameters.

    Args:
        alpha: factor of the cells of the first map to which something is added; the others stay as they are.
        beta: factor of the added cells.
        act: activation of the sum.

    Shape:
        (N, C, H, W), (N, C', H', W') -> (N, C, H, W)
    """

    def __init__(self, *, alpha: float = 1.0, beta: float = 1.0, act: ActivationName = "linear") -> None:
        super().__init__()
        self.alpha, self.beta = alpha, beta
        self.act = create_activation(act)

    def forward(self, x: Tensor, source: Tensor) -> Tensor:
        """Add ``source`` to ``x``."""
        return self.act(add_strided(x, source, self.alpha, self.beta))

    def extra_repr(self) -> str:
        """Show the factors in ``print(model)``."""
        return f"alpha={self.alpha}, beta={self.beta}"


@torch.fx.wrap
def add_strided(x: Tensor, source: Tensor, alpha: float = 1.0, beta: float = 1.0) -> Tensor:
    """Add the common channels of ``source`` to ``x``.

    Of a larger source every stride-th cell is read, a smaller one is added to every stride-th cell of ``x``. The stride
    is the ratio of the sizes without its remainder: of 15 x 15 cells, the first 8 x 8 are added to 8 x 8.
    It is one node of a graph that `torch.fx` traces.

    Shape:
        x (N, C, H, W), source (N, C', H', W') -> (N, C, H, W)
    """
    channels = min(x.shape[1], source.shape[1])
    read, written = zip(
        *(_match_cells(*sizes) for sizes in zip(source.shape[2:], x.shape[2:], strict=True)), strict=True
    )
    total = x.clone()
    part = total[:, :channels, *written]
    total[:, :channels, *written] = alpha * part + beta * source[:, :channels, *read]
    return total


def _match_cells(source: int, target: int) -> tuple[slice, slice]:
    """Return the cells to read and the cells to change along one side."""
    cells = min(source, target)
    read, written = max(source // target, 1), max(target // source, 1)
    return slice(0, cells * read, read), slice(0, cells * written, written)
