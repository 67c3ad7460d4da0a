"""The residual blocks: a chain of convolutions that ends in a shortcut."""

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from backbones.layers import ActivationName, ConvNormAct, DropBlock2d, Maxout, WeightedShortcut
from backbones.models.spec import Block, BlockKind, DropBlock, Fusion, Stage


class ResidualBlock(nn.Module):
    """Run the newest input through the convolutions and let a shortcut add earlier outputs of the stage.

    Args:
        convs: the residual path.
        shortcut: the sum or maximum; its first input is the residual path, the others are what the block is called
            with.
        drop: what happens to the result.

    Shape:
        (N, sources[j], H, W) for each earlier output, newest first -> (N, width, H, W)
    """

    def __init__(
        self, convs: Sequence[ConvNormAct], shortcut: WeightedShortcut | Maxout, drop: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.convs = nn.Sequential(*convs)
        self.shortcut = shortcut
        self.drop = drop or nn.Identity()

    @property
    def sources(self) -> int:
        """How many earlier outputs the block takes."""
        return len(self.shortcut.channels) - 1

    def forward(self, *earlier: Tensor) -> Tensor:
        """Add the residual of the newest output to all the outputs given."""
        return self.drop(self.shortcut(self.convs(earlier[0]), *earlier))


def create_block(
    block: Block,
    stage: Stage,
    sources: Sequence[int],
    *,
    act: ActivationName,
    fusion: Fusion,
    maxout: bool = False,
    drop: nn.Module | None = None,
) -> ResidualBlock:
    """Build one block; ``sources`` are the widths of the earlier outputs it takes, newest first."""
    convs, shortcut_act = _CONVS[block.kind](sources[0], stage, block.groups, act)
    shortcut = create_shortcut((stage.width, *sources), fusion, act=shortcut_act, maxout=maxout)
    return ResidualBlock(convs, shortcut, drop)


def create_shortcut(
    channels: Sequence[int], fusion: Fusion, *, act: ActivationName = "linear", maxout: bool = False
) -> WeightedShortcut | Maxout:
    """Build the shortcut that brings inputs of these widths together, as the policy says."""
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
    """Build the layer that the spec describes."""
    return DropBlock2d(drop_block.probability, drop_block.size, kind=drop_block.kind)


_Convs = tuple[list[ConvNormAct], ActivationName]


def _bottleneck(channels: int, stage: Stage, groups: int, act: ActivationName) -> _Convs:
    hidden = stage.hidden or stage.width
    convs = [
        ConvNormAct(channels, hidden, kernel=1, act=act),
        ConvNormAct(hidden, hidden, kernel=3, groups=groups, act=act),
        ConvNormAct(hidden, stage.width, kernel=1, act="linear"),
    ]
    return convs, act


def _darknet(channels: int, stage: Stage, groups: int, act: ActivationName) -> _Convs:
    hidden = stage.hidden or stage.width
    convs = [
        ConvNormAct(channels, hidden, kernel=1, act=act),
        ConvNormAct(hidden, stage.width, kernel=3, groups=groups, act=act),
    ]
    return convs, "linear"


_CONVS: dict[BlockKind, Callable[[int, Stage, int, ActivationName], _Convs]] = {
    "bottleneck": _bottleneck,
    "darknet": _darknet,
}
