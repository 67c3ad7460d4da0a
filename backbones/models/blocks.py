"""Residual blocks: a chain of convolutions that ends in a shortcut."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from torch import Tensor, nn

from backbones.layers.activation import ActivationName
from backbones.layers.conv import ConvNormAct
from backbones.layers.drop_block import DropBlock2d
from backbones.layers.drop_path import DropPath
from backbones.layers.elastic import Elastic
from backbones.layers.maxout import Maxout
from backbones.layers.norm_act import Unmerged, is_recomputable
from backbones.layers.shortcut import WeightedShortcut
from backbones.models.spec import Block, BlockKind, DropBlock, Fusion, Stage


class ResidualBlock(nn.Module):
    """Convolutions of the newest input, and a shortcut that adds earlier outputs of the stage.

    Args:
        convs: the residual path.
        shortcut: the sum or maximum of the residual path and the inputs of the block, in this order.
        drop: DropBlock after the shortcut; None for none.
        drop_path_rate: chance, in training, that the shortcut of a sample gets zeros in place of the residual path. Its
            other inputs and all fusion weights stay; a residual that is kept is scaled up, so that the sum keeps its
            mean.

    Shape:
        (N, sources[j], H, W) for each earlier output, newest first -> (N, width, H, W)
    """

    def __init__(
        self,
        convs: Sequence[nn.Module],
        shortcut: WeightedShortcut | Maxout,
        drop: nn.Module | None = None,
        *,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__()
        self.convs = nn.Sequential(*convs)
        self.drop_path = DropPath(drop_path_rate) if drop_path_rate else nn.Identity()
        self.shortcut = shortcut
        self.drop = drop or nn.Identity()

    @property
    def sources(self) -> int:
        """Return the number of earlier outputs that the block takes."""
        return len(self.shortcut.channels) - 1

    def forward(self, *earlier: Tensor, shares: Tensor | None = None) -> Tensor:
        """Add the residual of the newest output to all given outputs.

        ``shares`` are the effective weights of the shortcut, where they are computed already.
        """
        return self.drop(self.shortcut(self._run_residual_path(earlier[0]), *earlier, shares=shares))

    def _run_residual_path(self, x: Tensor) -> Tensor | Unmerged:
        """Run the convolutions; the normalization of the last one is left to the shortcut where that is possible."""
        *before, last = self.convs
        is_recomputed = is_recomputable(x, self.convs, self.drop_path, self.shortcut)
        if not is_recomputed or not isinstance(last, ConvNormAct) or isinstance(self.drop_path, DropPath):
            return self.drop_path(self.convs(x))
        for conv in before:
            x = conv(x)
        return last.convolve(x)


def create_block(  # noqa: PLR0913  (every option of a block)
    block: Block,
    stage: Stage,
    sources: Sequence[int],
    *,
    act: ActivationName,
    fusion: Fusion,
    maxout: bool = False,
    dilation: int = 1,
    drop: nn.Module | None = None,
    drop_path_rate: float = 0.0,
) -> ResidualBlock:
    """Build one block.

    Args:
        block: kind of the block.
        stage: widths.
        sources: widths of the earlier outputs that the block takes, newest first.
        act: activation.
        fusion: policy of the shortcut.
        maxout: the maximum in place of the sum.
        dilation: dilation of the 3x3 convolution.
        drop: layer after the shortcut.
        drop_path_rate: see `ResidualBlock`.
    """
    convs, shortcut_act = _create_convs(block, sources[0], stage, act, dilation)
    shortcut = create_shortcut((stage.width, *sources), fusion, act=shortcut_act, maxout=maxout)
    return ResidualBlock(convs, shortcut, drop, drop_path_rate=drop_path_rate)


def create_shortcut(
    channels: Sequence[int], fusion: Fusion, *, act: ActivationName = "linear", maxout: bool = False
) -> WeightedShortcut | Maxout:
    """Build the shortcut of the policy for inputs of these widths."""
    if maxout:
        return Maxout(channels)
    return WeightedShortcut(
        channels,
        weights_type=fusion.weights,
        normalization=fusion.normalization,
        act=act,
        fusion_gradient=fusion.gradient,
        burnin_update=fusion.burnin_update,
    )


def create_drop_block(drop_block: DropBlock) -> DropBlock2d:
    """Build the DropBlock layer of a spec."""
    return DropBlock2d(drop_block.probability, drop_block.size, kind=drop_block.kind)


_Convs = tuple[list[nn.Module], ActivationName]


def _create_convs(block: Block, channels: int, stage: Stage, act: ActivationName, dilation: int) -> _Convs:
    """Build the residual path, and name the activation of the shortcut."""
    create = _CONVS[block.kind]
    if block.elastic == "none":
        return create(channels, stage, block.groups, act, dilation)
    groups = max(1, block.groups // 2)
    halved = replace(stage, width=stage.width // 2, hidden=(stage.hidden or stage.width) // 2)
    fine, shortcut_act = create(channels // 2, halved, groups, act, dilation)
    cells = 4 if block.elastic == "reorg3d" else 1  # of a block of 2x2 that becomes channels
    coarse, _ = create(cells * channels // 2, replace(halved, width=cells * halved.width), groups, act, dilation)
    return [Elastic(nn.Sequential(*fine), nn.Sequential(*coarse), block.elastic)], shortcut_act


def _create_bottleneck(channels: int, stage: Stage, groups: int, act: ActivationName, dilation: int) -> _Convs:
    hidden = stage.hidden or stage.width
    convs: list[nn.Module] = [
        ConvNormAct(channels, hidden, kernel=1, act=act),
        ConvNormAct(hidden, hidden, kernel=3, dilation=dilation, groups=groups, act=act),
        ConvNormAct(hidden, stage.width, kernel=1, act="linear"),
    ]
    return convs, act


def _create_darknet(channels: int, stage: Stage, groups: int, act: ActivationName, dilation: int) -> _Convs:
    hidden = stage.hidden or stage.width
    convs: list[nn.Module] = [
        ConvNormAct(channels, hidden, kernel=1, act=act),
        ConvNormAct(hidden, stage.width, kernel=3, dilation=dilation, groups=groups, act=act),
    ]
    return convs, "linear"


_CONVS: dict[BlockKind, Callable[[int, Stage, int, ActivationName, int], _Convs]] = {
    "bottleneck": _create_bottleneck,
    "darknet": _create_darknet,
}
