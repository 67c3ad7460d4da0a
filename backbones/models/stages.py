"""The parts between image and classifier: the stem and the cross stage (CSP)."""

import torch
from torch import Tensor, nn

from backbones.layers import ActivationName, ConvNormAct
from backbones.models.blocks import ResidualBlock, create_block, create_drop_block, create_shortcut
from backbones.models.opening import create_downsample, create_join, pyramid_level, split_channels
from backbones.models.spec import Backbone, Stem


class ConvStem(nn.Module):
    """One convolution and perhaps a max pool.

    The pool rounds odd sizes up, as darknet's does.

    Shape:
        (N, in_channels, H, W) -> (N, width, H / s, W / s) with s = stride, or twice that with the pool,
        rounded up
    """

    def __init__(self, in_channels: int, stem: Stem, *, act: ActivationName) -> None:
        super().__init__()
        self.conv = ConvNormAct(in_channels, stem.width, kernel=stem.kernel, stride=stem.stride, act=act)
        self.pool = nn.MaxPool2d(2, ceil_mode=True) if stem.pool else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Convolve and pool."""
        return self.pool(self.conv(x))


class CrossStage(nn.Module):
    """Split in two paths, run the blocks on one of them, join the two.

    The parts are downsample, join, cross, entry, blocks, fuse, drop, transition and merge, defined in the order of
    darknet's layers, so that ``modules()`` walks a ``.weights`` file.

    Args:
        row: the network.
        index: which of its stages, from 0.
        in_chans: channels of the image; read where the row has an input pyramid.

    Shape:
        (N, in_channels, H, W) -> (N, out, ceil(H / 2), ceil(W / 2)), or (N, out, H, W) without a downsample; with an
        input pyramid also the level of the new size, (N, L, ceil(H / 2), ceil(W / 2))
    """

    def __init__(self, row: Backbone, index: int, *, in_chans: int = 3) -> None:
        super().__init__()
        stage, act = row.stages[index], row.act
        cross, partial = split_channels(row, index, in_chans)
        split_act = "linear" if stage.linear_split else act
        self.level = pyramid_level(row, index)
        self.downsample = create_downsample(row, index)
        self.join = create_join(row, index, in_chans)
        self.cross = ConvNormAct(cross, stage.width, kernel=1, act=split_act)
        self.entry = ConvNormAct(partial, _entry(row, index), kernel=1, act=split_act)
        self.blocks = nn.ModuleList(_create_blocks(row, index))
        self.fuse = _create_fuse(row, index)
        self.drop = create_drop_block(row.drop_block) if _drops(row, index, "last") else nn.Identity()
        self.transition = ConvNormAct(stage.width, stage.width, kernel=1, act=act)
        self.merge = ConvNormAct(2 * stage.width, stage.out, kernel=1, act=act)
        self.reach = _reach(row, index)

    def forward(self, x: Tensor, level: Tensor | None = None) -> Tensor:
        """Downsample, run both paths, merge [transition, cross]."""
        for_cross, for_entry = self._open(x, level)
        cross = self.cross(for_cross)
        x = self.transition(self.drop(self._run_blocks(self.entry(for_entry))))
        return self.merge(torch.cat([x, cross], 1))

    def _open(self, x: Tensor, level: Tensor | None) -> tuple[Tensor, Tensor]:
        x = self.downsample(x)
        if self.join is not None:
            x = self.join(x, level)
        return x if isinstance(x, tuple) else (x, x)

    def _run_blocks(self, entry: Tensor) -> Tensor:
        earlier = [entry]
        for block in self.blocks:
            assert isinstance(block, ResidualBlock)
            newest = block(*earlier[: block.sources])
            # Only what a later shortcut can still reach stays alive.
            earlier = [newest, *earlier][: self.reach]
        return earlier[0] if self.fuse is None else self.fuse(*earlier)


def _entry(row: Backbone, index: int) -> int:
    return row.stages[index].entry or row.stages[index].width


def _create_blocks(row: Backbone, index: int) -> list[ResidualBlock]:
    stage, fusion = row.stages[index], row.fusion
    blocks, earlier = [], [_entry(row, index)]
    for number in range(stage.depth):
        sources = earlier[: fusion.sources(number, depth=stage.depth)]
        maxout = fusion.is_maxout(number, depth=stage.depth)
        drop = create_drop_block(row.drop_block) if _drops(row, index, "every") else None
        blocks.append(create_block(row.block, stage, sources, act=row.act, fusion=fusion, maxout=maxout, drop=drop))
        earlier = [stage.width, *earlier]
    return blocks


def _create_fuse(row: Backbone, index: int) -> nn.Module | None:
    """Build the shortcut after the last block, where the fusion policy has one."""
    if row.fusion.inputs != "extra":
        return None
    stage = row.stages[index]
    channels = (*[stage.width] * stage.depth, _entry(row, index))
    return create_shortcut(channels, row.fusion, maxout=row.fusion.is_maxout(stage.depth, depth=stage.depth))


def _reach(row: Backbone, index: int) -> int:
    """Return how many of the newest outputs some later shortcut can still ask for."""
    depth = row.stages[index].depth
    if row.fusion.inputs == "extra":
        return depth + 1
    return max(row.fusion.sources(number, depth=depth) for number in range(depth))


def _drops(row: Backbone, index: int, position: str) -> bool:
    drop_block = row.drop_block
    return drop_block.position == position and drop_block.concerns(index, stages=len(row.stages))
