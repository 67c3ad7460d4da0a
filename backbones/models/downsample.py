"""The start of a stage: the downsample, alone or beside a max pool, and its level of the input pyramid."""

import torch
from torch import Tensor, nn

from backbones.layers.activation import ActivationName
from backbones.layers.conv import ConvNormAct
from backbones.layers.input_pyramid import PyramidKind, pyramid_channels
from backbones.layers.pooling import DilatedMaxPool2d, HalvingMaxPool2d
from backbones.layers.reorg import DilatedReorg3d, PaddedReorg3d
from backbones.layers.shortcut import WeightedShortcut
from backbones.models.spec import Backbone


class BranchedDownsample(nn.Module):
    """Strided convolution and 2x2 max pool of the same map, side by side ("sub" in the thread).

    With a convolution of stride 1 the pool keeps the size, too, and has the convolution's dilation.

    Shape:
        (N, in_channels, H, W) -> ``concat``: (N, out_channels + in_channels, ceil(H / 2), ceil(W / 2)), convolution
        first; ``add``: (N, out_channels, ...); ``split``: the pair (pool, convolution), for cross and partial path
    """

    def __init__(self, conv: ConvNormAct, kind: str) -> None:
        super().__init__()
        self.conv = conv
        halves = conv.conv.stride[0] == 2
        self.pool = HalvingMaxPool2d() if halves else DilatedMaxPool2d(conv.conv.dilation[0])
        self.kind = kind
        channels = conv.conv.out_channels
        self.add = WeightedShortcut((channels, channels)) if kind == "add" else None

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Run both branches and combine them."""
        conv, pool = self.conv(x), self.pool(x)
        if self.kind == "split":
            return pool, conv
        return self.add(conv, pool) if self.add else torch.cat([conv, pool], 1)


class ReorgDownsample(nn.Module):
    """Space to depth, then a 1x1 convolution of all channels.

    Darknet issue #4662 compares it with a strided 3x3 convolution: both see every cell. Odd edges are filled with
    zeros. With a dilation it keeps the size.

    Shape:
        (N, in_channels, H, W) -> (N, out_channels, ceil(H / 2), ceil(W / 2)), or (N, out_channels, H, W)
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, act: ActivationName = "mish", dilation: int | None = None
    ) -> None:
        super().__init__()
        self.reorg = PaddedReorg3d(2) if dilation is None else DilatedReorg3d(dilation)
        self.conv = ConvNormAct(4 * in_channels, out_channels, kernel=1, act=act)

    def forward(self, x: Tensor) -> Tensor:
        """Move blocks of cells into channels, convolve them."""
        return self.conv(self.reorg(x))


class ConcatLevel(nn.Module):
    """Concatenation of a map and a level of the input pyramid.

    Shape:
        (N, C, H, W), (N, L, H, W) -> (N, C + L, H, W)
    """

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        """Concatenate in the type of the map, because under autocast the image is still float32."""
        return torch.cat([x, level.to(x.dtype)], 1)


class AddLevel(nn.Module):
    """Sum of a map and a linear 1x1 convolution of a level of the input pyramid.

    Shape:
        (N, C, H, W), (N, L, H, W) -> (N, C, H, W)
    """

    def __init__(self, channels: int, level_channels: int) -> None:
        super().__init__()
        self.conv = ConvNormAct(level_channels, channels, kernel=1, act="linear")
        self.add = WeightedShortcut((channels, channels))

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        """Convolve and add."""
        return self.add(x, self.conv(level))


def create_downsample(spec: Backbone, index: int) -> nn.Module:
    """Build the downsample of stage ``index``; an identity if the stage has none.

    Where ``spec.output_stride`` takes its stride away, it has the dilation of the stage before.
    """
    in_channels, out_channels = spec.widths[index], spec.stages[index].down
    if out_channels is None:
        return nn.Identity()
    before, after = (1, *spec.dilations)[index : index + 2]
    halves = after == before
    if spec.downsample == "reorg3d":
        return ReorgDownsample(in_channels, out_channels, act=spec.act, dilation=None if halves else before)
    geometry = {"stride": 2 if halves else 1, "dilation": before, "groups": spec.block.groups}
    conv = ConvNormAct(in_channels, out_channels, kernel=spec.downsample_kernel, act=spec.act, **geometry)
    return conv if spec.downsample == "conv" else BranchedDownsample(conv, spec.downsample)


def create_join(spec: Backbone, index: int, in_chans: int) -> nn.Module | None:
    """Build the layer that joins the input pyramid to stage ``index``; None if no level joins it."""
    level = pyramid_level(spec, index)
    if level is None:
        return None
    if spec.pyramid == "conv_add":
        return AddLevel(_downsample_channels(spec, index)[0], in_chans)
    return ConcatLevel()


def split_channels(spec: Backbone, index: int, in_chans: int) -> tuple[int, int]:
    """Return the input channels of the cross path and of the partial path of stage ``index``."""
    cross, partial = _downsample_channels(spec, index)
    level, kind = pyramid_level(spec, index), pyramid_kind(spec)
    added = 0 if level is None or spec.pyramid == "conv_add" else pyramid_channels(in_chans, level, kind)
    return cross + added, partial + added


def pyramid_level(spec: Backbone, index: int) -> int | None:
    """Return the number, from 1, of the pyramid level with the size of stage ``index``; None if no level joins it."""
    if spec.pyramid == "none" or spec.stages[index].down is None:
        return None
    return spec.reductions[index].bit_length() - 1


def pyramid_kind(spec: Backbone) -> PyramidKind:
    """Return the kind of the levels."""
    return "reorg3d" if spec.pyramid == "reorg3d" else "avgpool"


def _downsample_channels(spec: Backbone, index: int) -> tuple[int, int]:
    """Return the channels after the downsample of stage ``index``, for cross path and partial path."""
    before, down = spec.widths[index], spec.stages[index].down
    if down is None:
        return before, before
    both = (down, down)
    widths = {"conv": both, "reorg3d": both, "concat": (down + before,) * 2, "add": both, "split": (before, down)}
    return widths[spec.downsample]
