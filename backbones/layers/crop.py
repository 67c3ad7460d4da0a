"""Crop inside of a network: darknet's ``[crop]``, at a random place in training and in the middle otherwise."""

import torch
import torch.fx
from torch import Tensor, nn


class Crop(nn.Module):
    """Window of a map, brought from [0, 1] to [-1, 1].

    In training, each image gets a place and a flip from torch's generator. Otherwise the window is in the middle,
    rounded up and left, and nothing is flipped.

    Args:
        height: cells of the window.
        width: cells of the window.
        flip: whether half of the images are flipped in training.
        adjust: whether values are changed to ``2 x - 1``.

    Shape:
        (N, C, H, W) -> (N, C, height, width)

    Raises:
        ValueError: the window is larger than the map.
    """

    def __init__(self, height: int, width: int, *, flip: bool = False, adjust: bool = True) -> None:
        super().__init__()
        self.height, self.width, self.flip, self.adjust = height, width, flip, adjust

    def forward(self, x: Tensor) -> Tensor:
        """Cut out the window."""
        part = crop(x, self.height, self.width, is_random=self.training, flip=self.flip)
        return 2 * part - 1 if self.adjust else part

    def extra_repr(self) -> str:
        """Show the window in ``print(model)``."""
        return f"{self.height}, {self.width}, flip={self.flip}, adjust={self.adjust}"


@torch.fx.wrap
def crop(x: Tensor, height: int, width: int, *, is_random: bool = False, flip: bool = False) -> Tensor:
    """Return the window in the middle, or for each image one at a random place.

    It is one node of a graph that `torch.fx` traces.

    Shape:
        (N, C, H, W) -> (N, C, height, width)
    """
    down, across = x.shape[2] - height, x.shape[3] - width
    if down < 0 or across < 0:
        raise ValueError(f"a crop of {width} x {height} is larger than the map of {x.shape[3]} x {x.shape[2]}")
    if not is_random:
        return x[:, :, down // 2 : down // 2 + height, across // 2 : across // 2 + width]
    rows = _draw_windows(len(x), down, height, x.device)
    columns = _draw_windows(len(x), across, width, x.device)
    if flip:
        columns = torch.where(torch.rand(len(x), 1, device=x.device) < 0.5, columns.flip(1), columns)
    images = torch.arange(len(x), device=x.device)[:, None, None]
    return x[images, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _draw_windows(count: int, room: int, length: int, device: torch.device) -> Tensor:
    """Return the cells of ``count`` windows along one side, (count, length)."""
    starts = torch.randint(room + 1, (count, 1), device=device)
    return starts + torch.arange(length, device=device)
