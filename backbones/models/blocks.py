"""The residual blocks: a chain of convolutions that ends in a shortcut."""

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from backbones.layers import ActivationName, ConvNormAct, WeightedShortcut
from backbones.models.spec import Block, BlockKind, Fusion, Stage


class ResidualBlock(nn.Module):
    """Run the newest input through the convolutions and let a shortcut add earlier outputs of the stage.

    Args:
        convs: the residual path.
        shortcut: the sum; its first input is the residual path, the others are what the block is called with.

    Shape:
        (N, sources[j], H, W) for each earlier output, newest first -> (N, width, H, W)
    """

    def __init__(self, convs: Sequence[ConvNormAct], shortcut: WeightedShortcut) -> None:
        super().__init__()
        self.convs = nn.Sequential(*convs)
        self.shortcut = shortcut

    @property
    def sources(self) -> int:
        """How many earlier outputs the block takes."""
        return len(self.shortcut.channels) - 1

    def forward(self, *earlier: Tensor) -> Tensor:
        """Add the residual of the newest output to all the outputs given."""
        return self.shortcut(self.convs(earlier[0]), *earlier)


def create_block(
    block: Block, stage: Stage, sources: Sequence[int], *, act: ActivationName, fusion: Fusion
) -> ResidualBlock:
    """Build one block; ``sources`` are the widths of the earlier outputs it takes, newest first."""
    convs, shortcut_act = _CONVS[block.kind](sources[0], stage, block.groups, act)
    shortcut = WeightedShortcut(
        (stage.width, *sources),
        weights_type=fusion.weights,
        normalization=fusion.normalization,
        act=shortcut_act,
    )
    return ResidualBlock(convs, shortcut)


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
