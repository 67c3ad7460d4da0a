"""The stem and the cross stage (CSP): everything between image and classifier."""

import torch
from torch import Tensor, nn

from backbones.layers.activation import ActivationName
from backbones.layers.conv import ConvNormAct
from backbones.layers.drop_path import drop_path_rates
from backbones.layers.pooling import HalvingMaxPool2d
from backbones.layers.shortcut import Shares
from backbones.models.blocks import ResidualBlock, create_block, create_drop_block, create_shortcut
from backbones.models.downsample import create_downsample, create_join, pyramid_level, split_channels
from backbones.models.spec import Backbone, Stem


class ConvStem(nn.Sequential):
    """One convolution and an optional max pool that rounds odd sizes up, as darknet's does.

    timm's ``FeatureListNet`` flattens `nn.Sequential` only, to take the map before the pool.

    Shape:
        (N, in_channels, H, W) -> (N, width, ceil(H / s), ceil(W / s)), s = stride, or twice that with the pool
    """

    def __init__(self, in_channels: int, stem: Stem, *, act: ActivationName) -> None:
        super().__init__()
        self.conv = ConvNormAct(in_channels, stem.width, kernel=stem.kernel, stride=stem.stride, act=act)
        self.pool = HalvingMaxPool2d() if stem.pool else nn.Identity()


class CrossStage(nn.Module):
    """Stage with two paths: blocks on the partial path, one convolution on the cross path, both merged.

    The parts are downsample, join, cross, entry, blocks, last_shortcut, drop, transition and merge. ``modules()``
    lists them in this order, which is the order of darknet's layers.

    Args:
        spec: the network.
        index: number of the stage, from 0.
        in_chans: channels of the image; used by an input pyramid only.

    Shape:
        (N, in_channels, H, W) -> (N, out, ceil(H / 2), ceil(W / 2)), or (N, out, H, W) without a downsample or with a
        dilated one. With an input pyramid there is a second input, the level of the new size:
        (N, L, ceil(H / 2), ceil(W / 2))
    """

    def __init__(self, spec: Backbone, index: int, *, in_chans: int = 3) -> None:
        super().__init__()
        stage, act = spec.stages[index], spec.act
        cross, partial = split_channels(spec, index, in_chans)
        split_act = "linear" if stage.linear_split else act
        self.level = pyramid_level(spec, index)
        self.downsample = create_downsample(spec, index)
        self.join = create_join(spec, index, in_chans)
        self.cross = ConvNormAct(cross, stage.width, kernel=1, act=split_act)
        self.entry = ConvNormAct(partial, _entry_width(spec, index), kernel=1, act=split_act)
        self.blocks = nn.ModuleList(_create_blocks(spec, index))
        self.last_shortcut = _create_last_shortcut(spec, index)
        self.drop = create_drop_block(spec.drop_block) if _has_drop_block(spec, index, "last") else nn.Identity()
        self.transition = ConvNormAct(stage.width, stage.width, kernel=1, act=act)
        self.merge = ConvNormAct(2 * stage.width, stage.out, kernel=1, act=act)
        self.history = _count_history(spec, index)

    def forward(self, x: Tensor, level: Tensor | None = None, *, shares: Shares | None = None) -> Tensor:
        """Downsample, run both paths, merge [transition, cross].

        ``shares`` has the effective weights of shortcuts that are computed already.
        """
        for_cross, for_entry = self._split(x, level)
        cross = self.cross(for_cross)
        x = self.transition(self.drop(self._run_blocks(self.entry(for_entry), shares or {})))
        return self.merge(torch.cat([x, cross], 1))

    def _split(self, x: Tensor, level: Tensor | None) -> tuple[Tensor, Tensor]:
        x = self.downsample(x)
        if self.join is not None:
            x = self.join(x, level)
        return x if isinstance(x, tuple) else (x, x)

    def _run_blocks(self, entry: Tensor, shares: Shares) -> Tensor:
        earlier = [entry]
        for block in self.blocks:
            assert isinstance(block, ResidualBlock)
            newest = block(*earlier[: block.sources], shares=shares.get(block.shortcut))
            # Keep only the outputs that a later shortcut adds.
            earlier = [newest, *earlier][: self.history]
        last = self.last_shortcut
        return earlier[0] if last is None else last(*earlier, shares=shares.get(last))


def _entry_width(spec: Backbone, index: int) -> int:
    return spec.stages[index].entry or spec.stages[index].width


def _create_blocks(spec: Backbone, index: int) -> list[ResidualBlock]:
    stage, fusion, has_drop_block = spec.stages[index], spec.fusion, _has_drop_block(spec, index, "every")
    blocks, earlier = [], [_entry_width(spec, index)]
    for number, rate in enumerate(_drop_path_rates(spec, index)):
        block = create_block(
            spec.block,
            stage,
            earlier[: fusion.sources(number, depth=stage.depth)],
            act=spec.act,
            fusion=fusion,
            maxout=fusion.is_maxout(number, depth=stage.depth),
            dilation=spec.dilations[index],
            drop=create_drop_block(spec.drop_block) if has_drop_block else None,
            drop_path_rate=rate,
        )
        blocks.append(block)
        earlier = [stage.width, *earlier]
    return blocks


def _drop_path_rates(spec: Backbone, index: int) -> list[float]:
    """Return the chance of each block of stage ``index``."""
    depths = [stage.depth for stage in spec.stages]
    before = sum(depths[:index])
    return drop_path_rates(spec.drop_path_rate, sum(depths))[before : before + depths[index]]


def _create_last_shortcut(spec: Backbone, index: int) -> nn.Module | None:
    """Build the shortcut after the last block, if the fusion policy has one."""
    if spec.fusion.inputs != "extra":
        return None
    stage = spec.stages[index]
    channels = (*[stage.width] * stage.depth, _entry_width(spec, index))
    return create_shortcut(channels, spec.fusion, maxout=spec.fusion.is_maxout(stage.depth, depth=stage.depth))


def _count_history(spec: Backbone, index: int) -> int:
    """Return the largest number of earlier outputs that a shortcut of the stage adds."""
    depth = spec.stages[index].depth
    if spec.fusion.inputs == "extra":
        return depth + 1
    return max(spec.fusion.sources(number, depth=depth) for number in range(depth))


def _has_drop_block(spec: Backbone, index: int, position: str) -> bool:
    in_stage = spec.drop_block.is_in(index, stages=len(spec.stages))
    return in_stage and spec.drop_block.position == position
