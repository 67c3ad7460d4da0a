"""A network as data: frozen, validated rows that say what to build and import no torch themselves."""

from dataclasses import dataclass, field
from typing import Literal, get_args

from backbones.layers.activation import ActivationName
from backbones.layers.choice import require_choice
from backbones.layers.shortcut import Normalization, WeightsType, require_fusion

BlockKind = Literal["bottleneck", "darknet"]
FusionInputs = Literal["block", "stage"]


@dataclass(frozen=True)
class Stem:
    """What stands before the first stage: one convolution, and a 2x2 max pool if ``pool``."""

    width: int
    """Channels of the convolution."""
    kernel: int
    """Height and width of its kernel."""
    stride: int = 1
    """Its stride."""
    pool: bool = False
    """Halve once more with a 2x2 max pool."""

    def __post_init__(self) -> None:
        """Refuse sizes that cannot be built."""
        _require_positive("stem", width=self.width, kernel=self.kernel, stride=self.stride)


@dataclass(frozen=True)
class Stage:
    """One resolution of the network: blocks on the partial path, and a cross path around them."""

    depth: int
    """Number of blocks."""
    width: int
    """Channels of each path."""
    out: int
    """Channels of the convolution that merges the two paths."""
    down: int | None
    """Channels of the strided convolution that opens the stage; None keeps the resolution."""
    entry: int | None = None
    """Channels of the convolution into the partial path where they are not ``width``. The first shortcut then
    adds the entry to its first channels only (a partial residual)."""
    linear_split: bool = False
    """The two convolutions that split the stage, cross and entry, have no activation."""
    hidden: int | None = None
    """Channels inside a block where they are not ``width``."""

    def __post_init__(self) -> None:
        """Refuse sizes that cannot be built."""
        sizes = {"down": self.down, "entry": self.entry, "hidden": self.hidden}
        given = {name: size for name, size in sizes.items() if size is not None}
        _require_positive("stage", depth=self.depth, width=self.width, out=self.out, **given)


@dataclass(frozen=True)
class Block:
    """The residual block that all stages repeat."""

    kind: BlockKind
    """``bottleneck``: 1x1, grouped 3x3, linear 1x1, activation after the sum. ``darknet``: 1x1, 3x3, plain
    sum."""
    groups: int = 1
    """Groups of the 3x3 convolutions, in the blocks and in the downsample."""

    def __post_init__(self) -> None:
        """Refuse an unknown kind."""
        require_choice("block.kind", self.kind, get_args(BlockKind))
        _require_positive("block", groups=self.groups)


@dataclass(frozen=True)
class Fusion:
    """The policy of the shortcuts: what they add and how they weigh it."""

    inputs: FusionInputs = "block"
    """``block``: each shortcut adds the block's input. ``stage``: the last shortcut of a stage adds, newest
    first, all earlier shortcut outputs of the stage and the stage entry."""
    weights: WeightsType = "none"
    """Learned fusion weights: none, one for each input, or one for each input and channel."""
    normalization: Normalization = "none"
    """How the fusion weights become shares."""

    def __post_init__(self) -> None:
        """Refuse unknown words and a normalization without weights."""
        require_choice("fusion.inputs", self.inputs, get_args(FusionInputs))
        require_fusion(self.weights, self.normalization)

    def sources(self, block: int, *, depth: int) -> int:
        """Count what the shortcut of block ``block`` (from 0) of ``depth`` adds to its own path."""
        return block + 1 if self.inputs == "stage" and block == depth - 1 else 1


@dataclass(frozen=True)
class Backbone:
    """A whole network up to its classifier."""

    stem: Stem
    """What stands before the first stage."""
    block: Block
    """The block of every stage."""
    stages: tuple[Stage, ...]
    """The stages, high resolution first."""
    act: ActivationName = "mish"
    """Activation of every convolution that is not linear by definition."""
    fusion: Fusion = field(default_factory=Fusion)
    """Policy of the shortcuts."""

    def __post_init__(self) -> None:
        """Refuse an unknown activation, an empty network and widths that the groups do not divide."""
        require_choice("act", self.act, get_args(ActivationName))
        if not self.stages:
            raise ValueError("stages=() is empty: a backbone has at least one stage")
        for index, stage in enumerate(self.stages):
            _require_groups(index, stage, self.block.groups)


def _require_positive(owner: str, **sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{owner}.{name}={size} must be at least 1")


def _require_groups(index: int, stage: Stage, groups: int) -> None:
    grouped = {"width": stage.width, "down": stage.down or groups, "hidden": stage.hidden or groups}
    for name, width in grouped.items():
        if width % groups:
            raise ValueError(f"stages[{index}].{name}={width} is not divisible by block.groups={groups}")
