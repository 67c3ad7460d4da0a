"""The parts between image and classifier: the stem and the cross stage (CSP)."""

import torch
from torch import Tensor, nn

from backbones.layers import ActivationName, ConvNormAct
from backbones.models.blocks import ResidualBlock, create_block
from backbones.models.spec import Block, Fusion, Stage, Stem


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

    The parts are downsample, cross, entry, blocks, transition and merge, defined in the order of darknet's
    layers, so that ``modules()`` walks a ``.weights`` file.

    Shape:
        (N, in_channels, H, W) -> (N, out, ceil(H / 2), ceil(W / 2)), or (N, out, H, W) without a downsample
    """

    def __init__(self, in_channels: int, stage: Stage, *, block: Block, act: ActivationName, fusion: Fusion) -> None:
        super().__init__()
        channels = stage.down or in_channels
        entry = stage.entry or stage.width
        split_act = "linear" if stage.linear_split else act
        self.downsample = _create_downsample(in_channels, stage.down, groups=block.groups, act=act)
        self.cross = ConvNormAct(channels, stage.width, kernel=1, act=split_act)
        self.entry = ConvNormAct(channels, entry, kernel=1, act=split_act)
        self.blocks = nn.ModuleList(_create_blocks(entry, stage, block=block, act=act, fusion=fusion))
        self.transition = ConvNormAct(stage.width, stage.width, kernel=1, act=act)
        self.merge = ConvNormAct(2 * stage.width, stage.out, kernel=1, act=act)
        self.reach = max(fusion.sources(index, depth=stage.depth) for index in range(stage.depth))

    def forward(self, x: Tensor) -> Tensor:
        """Downsample, run both paths, merge [transition, cross]."""
        x = self.downsample(x)
        cross = self.cross(x)
        x = self.transition(self._run_blocks(self.entry(x)))
        return self.merge(torch.cat([x, cross], 1))

    def _run_blocks(self, entry: Tensor) -> Tensor:
        earlier = [entry]
        for block in self.blocks:
            assert isinstance(block, ResidualBlock)
            newest = block(*earlier[: block.sources])
            # Only what a later shortcut can still reach stays alive.
            earlier = [newest, *earlier][: self.reach]
        return earlier[0]


def _create_downsample(in_channels: int, out_channels: int | None, *, groups: int, act: ActivationName) -> nn.Module:
    if out_channels is None:
        return nn.Identity()
    return ConvNormAct(in_channels, out_channels, kernel=3, stride=2, groups=groups, act=act)


def _create_blocks(
    entry: int, stage: Stage, *, block: Block, act: ActivationName, fusion: Fusion
) -> list[ResidualBlock]:
    blocks, earlier = [], [entry]
    for index in range(stage.depth):
        sources = earlier[: fusion.sources(index, depth=stage.depth)]
        blocks.append(create_block(block, stage, sources, act=act, fusion=fusion))
        earlier = [stage.width, *earlier]
    return blocks
