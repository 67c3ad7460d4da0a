"""A network as data: its frozen and validated spec, which needs no torch."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from operator import mul
from typing import Literal, get_args

from backbones.choices import ActivationName, DropBlockKind, FusionGradient, Normalization, WeightsType
from backbones.errors import require_choice
from backbones.rules import require_drop_block, require_fusion

BlockKind = Literal["bottleneck", "darknet"]
FusionInputs = Literal["block", "stage", "dense", "extra"]
MaxoutScope = Literal["none", "stage", "all"]
Downsample = Literal["conv", "reorg3d", "concat", "add", "split"]
DownsampleKernel = Literal[3, 5, 7, 9]
Pyramid = Literal["none", "avgpool", "reorg3d", "conv_add"]
OutputStride = Literal[8, 16, 32]
DropBlockPosition = Literal["last", "every"]
ElasticBlock = Literal["none", "pool", "reorg3d"]


@dataclass(frozen=True)
class Stem:
    """First part of a network: one convolution, and a 2x2 max pool if ``pool``."""

    width: int
    """Channels of the convolution."""
    kernel: int
    """Height and width of the kernel."""
    stride: int = 1
    """Stride of the convolution."""
    pool: bool = False
    """Halve once more with a 2x2 max pool."""

    def __post_init__(self) -> None:
        """Refuse sizes that cannot be built."""
        _require_positive("stem", width=self.width, kernel=self.kernel, stride=self.stride)


@dataclass(frozen=True)
class Stage:
    """Part of one resolution: blocks on the partial path, and a cross path beside them."""

    depth: int
    """Number of blocks."""
    width: int
    """Channels of each path."""
    out: int
    """Channels of the convolution that merges the two paths."""
    down: int | None
    """Channels of the strided convolution at the start of the stage; None keeps the resolution."""
    entry: int | None = None
    """Channels of the convolution into the partial path; None means ``width``. With fewer channels, the first
    shortcut adds the entry to its first channels only (a partial residual)."""
    linear_split: bool = False
    """The two convolutions that split the stage, cross and entry, have no activation."""
    hidden: int | None = None
    """Channels inside a block; None means ``width``."""

    def __post_init__(self) -> None:
        """Refuse sizes that cannot be built."""
        sizes = {"down": self.down, "entry": self.entry, "hidden": self.hidden}
        given = {name: size for name, size in sizes.items() if size is not None}
        _require_positive("stage", depth=self.depth, width=self.width, out=self.out, **given)


@dataclass(frozen=True)
class Block:
    """Residual block that all stages repeat."""

    kind: BlockKind
    """``bottleneck``: 1x1, grouped 3x3, linear 1x1, activation after the sum. ``darknet``: 1x1, 3x3, plain sum."""
    groups: int = 1
    """Groups of the 3x3 convolutions in the blocks, and of the strided convolutions."""
    elastic: ElasticBlock = "none"
    """Convolutions of a block at two resolutions, with half of the channels and groups each. The second half is halved
    and doubled by a 2x2 max pool and repeated cells (``pool``), or by space to depth and its inverse (``reorg3d``)."""

    def __post_init__(self) -> None:
        """Refuse an unknown kind."""
        require_choice("block.kind", self.kind, get_args(BlockKind))
        require_choice("block.elastic", self.elastic, get_args(ElasticBlock))
        _require_positive("block", groups=self.groups)
        if self.elastic != "none" and self.groups > 1 and self.groups % 2:
            raise ValueError(f"block.groups={self.groups} is odd, but block.elastic={self.elastic!r} halves it")


@dataclass(frozen=True)
class Fusion:
    """Policy of the shortcuts: their inputs and the weights of the inputs."""

    inputs: FusionInputs = "block"
    """``block``: each shortcut adds the input of its block. ``stage``: the last shortcut of a stage adds all earlier
    shortcut outputs of the stage and the entry, newest first. ``dense``: every shortcut does so. ``extra``: as
    ``block``, and one more shortcut after the last block adds all of them."""
    weights: WeightsType = "none"
    """Learned fusion weights: none, one for each input, or one for each input and channel."""
    normalization: Normalization = "none"
    """Rule that turns fusion weights into shares."""
    gradient: FusionGradient = "true"
    """Gradient of the fusion weights: the true one, or the one of darknet's CUDA code."""
    maxout: MaxoutScope = "none"
    """Shortcuts with the maximum of the inputs in place of their sum, and without an activation: none, the last one of
    each stage, or all."""
    burnin_update: int = 0
    """Number of burn-ins for which darknet's update rule holds the fusion weights."""

    def __post_init__(self) -> None:
        """Refuse unknown words and choices that do not fit each other."""
        require_choice("fusion.inputs", self.inputs, get_args(FusionInputs))
        require_choice("fusion.maxout", self.maxout, get_args(MaxoutScope))
        require_fusion(self.weights, self.normalization, self.gradient)
        if self.maxout == "all" and self.weights != "none":
            raise ValueError(f"fusion.weights={self.weights!r} has nothing to weigh with fusion.maxout='all'")
        if self.burnin_update < 0:
            raise ValueError(f"fusion.burnin_update={self.burnin_update} must not be negative")

    def sources(self, block: int, *, depth: int) -> int:
        """Count the earlier outputs that the shortcut of block ``block`` (from 0) of ``depth`` adds."""
        takes_all = self.inputs == "dense" or (self.inputs == "stage" and block == depth - 1)
        return block + 1 if takes_all else 1

    def is_maxout(self, block: int, *, depth: int) -> bool:
        """Return whether block ``block`` takes the maximum; the extra shortcut counts as block ``depth``."""
        last = depth if self.inputs == "extra" else depth - 1
        return self.maxout == "all" or (self.maxout == "stage" and block == last)


@dataclass(frozen=True)
class DropBlock:
    """Places of DropBlock, and the share that it drops."""

    stages: tuple[int, ...] = ()
    """Stages with DropBlock, counted from 0, or from the end with negative numbers."""
    position: DropBlockPosition = "last"
    """After the last shortcut of the stage, or after every shortcut."""
    probability: float = 0.1
    """Share of cells to drop at full strength."""
    size: int = 7
    """Height and width of a square at full strength."""
    kind: DropBlockKind = "darknet"
    """Rule of darknet or of the paper."""

    def __post_init__(self) -> None:
        """Refuse unknown words and squares that cannot be dropped."""
        require_choice("drop_block.position", self.position, get_args(DropBlockPosition))
        require_drop_block(self.probability, self.size, self.kind)

    def is_in(self, stage: int, *, stages: int) -> bool:
        """Return whether stage ``stage`` (from 0) of ``stages`` has DropBlock."""
        return stage in self.stages or stage - stages in self.stages


@dataclass(frozen=True)
class Backbone:
    """Spec of a whole network without its classifier."""

    stem: Stem
    """First part, before the stages."""
    block: Block
    """Block of every stage."""
    stages: tuple[Stage, ...]
    """Stages, high resolution first."""
    act: ActivationName = "mish"
    """Activation of every convolution that is not linear by definition."""
    fusion: Fusion = field(default_factory=Fusion)
    """Policy of the shortcuts."""
    downsample: Downsample = "conv"
    """Start of a stage: a strided convolution (``conv``); space to depth and a 1x1 convolution (``reorg3d``); or the
    strided convolution and a 2x2 max pool side by side. These two are concatenated (``concat``), added (``add``) or
    kept apart (``split``: the convolution feeds the partial path, the pool the cross path)."""
    drop_block: DropBlock = field(default_factory=DropBlock)
    """Places of DropBlock; none by default."""
    pyramid: Pyramid = "none"
    """Input pyramid. Each downsampled map is concatenated with the ``avgpool`` or ``reorg3d`` level of its size, or a
    1x1 convolution of the ``avgpool`` level is added to it (``conv_add``)."""
    output_stride: OutputStride | None = None
    """Largest reduction. A stage that would reduce further keeps its size. Its 3x3 convolutions and pool are dilated
    instead, so that the same weights see the same cells. None lets every stage halve the size."""
    drop_path_rate: float = 0.0
    """Stochastic depth: chance, in training, that the last block leaves out the output of its convolutions; the chance
    grows linearly from 0 at the first block. The shortcut then sums the other inputs, with their own fusion weights."""
    downsample_kernel: DownsampleKernel = 3
    """Height and width of the strided convolution at the start of a stage."""

    def __post_init__(self) -> None:
        """Refuse unknown words, an empty network, and widths and options that do not fit."""
        require_choice("act", self.act, get_args(ActivationName))
        require_choice("downsample", self.downsample, get_args(Downsample))
        require_choice("pyramid", self.pyramid, get_args(Pyramid))
        if not self.stages:
            raise ValueError("stages=() is empty: a backbone has at least one stage")
        for index, stage in enumerate(self.stages):
            _require_groups(index, stage, self.block.groups)
            _require_halves(index, stage, self.block.elastic)
        _require_downsample(self)
        _require_pyramid(self)
        _require_stages(self.drop_block.stages, len(self.stages))
        _require_output_stride(self)
        _require_drop_path(self)

    @property
    def widths(self) -> tuple[int, ...]:
        """Return the input channels of each stage, then the output channels of the last."""
        return self.stem.width, *(stage.out for stage in self.stages)

    @property
    def reductions(self) -> tuple[int, ...]:
        """Return the reduction of each stage: the size of the image divided by the size of its map."""
        return tuple(full // dilation for full, dilation in zip(self._strides[1:], self.dilations, strict=True))

    @property
    def dilations(self) -> tuple[int, ...]:
        """Return the dilation of each stage: the halvings that ``output_stride`` leaves out, as a factor."""
        largest = max(stride for stride in self._strides if stride <= (self.output_stride or stride))
        return tuple(max(1, stride // largest) for stride in self._strides[1:])

    @property
    def _strides(self) -> tuple[int, ...]:
        """Return the reductions after the stem and after each stage where every stage may halve the size."""
        after_stem = self.stem.stride * (2 if self.stem.pool else 1)
        return tuple(accumulate((2 if stage.down else 1 for stage in self.stages), mul, initial=after_stem))


def with_depths(spec: Backbone, depths: Sequence[int]) -> Backbone:
    """Return ``spec`` with other numbers of blocks in its stages."""
    if len(depths) != len(spec.stages):
        raise ValueError(f"depths={tuple(depths)} must have one number for each of the {len(spec.stages)} stages")
    stages = (replace(stage, depth=depth) for stage, depth in zip(spec.stages, depths, strict=True))
    return replace(spec, stages=tuple(stages))


def _require_positive(owner: str, **sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{owner}.{name}={size} must be at least 1")


def _require_number(name: str, given: int, known: Sequence[int]) -> None:
    if given not in known:
        raise ValueError(f"{name}={given!r} is not one of {', '.join(map(str, known))}")


def _require_groups(index: int, stage: Stage, groups: int) -> None:
    grouped = {"width": stage.width, "down": stage.down or groups, "hidden": stage.hidden or groups}
    for name, width in grouped.items():
        if width % groups:
            raise ValueError(f"stages[{index}].{name}={width} is not divisible by block.groups={groups}")


def _require_halves(index: int, stage: Stage, elastic: ElasticBlock) -> None:
    for name, width in {"width": stage.width, "entry": stage.entry, "hidden": stage.hidden}.items():
        if elastic != "none" and width and width % 2:
            raise ValueError(f"stages[{index}].{name}={width} is odd, but block.elastic={elastic!r} halves it")


def _require_downsample(spec: Backbone) -> None:
    _require_kernel(spec)
    for index, (width, stage) in enumerate(zip(spec.widths, spec.stages, strict=False)):
        if spec.downsample == "add" and stage.down not in {None, width}:
            raise ValueError(
                f"downsample='add' cannot add the {width} channels that the pool of stages[{index}] keeps to the "
                f"{stage.down} of its convolution"
            )


def _require_kernel(spec: Backbone) -> None:
    given = spec.downsample_kernel
    _require_number("downsample_kernel", given, get_args(DownsampleKernel))
    if spec.downsample == "reorg3d" and given != 3:
        raise TypeError(
            f"downsample_kernel={given} does not work with downsample='reorg3d': there is no strided convolution"
        )


def _require_pyramid(spec: Backbone) -> None:
    if spec.pyramid == "none":
        return
    if spec.downsample == "split":
        raise ValueError(f"pyramid={spec.pyramid!r} cannot join downsample='split': its stages begin with two maps")
    if any(reduction & (reduction - 1) for reduction in spec.reductions):
        raise ValueError(f"pyramid={spec.pyramid!r} halves the image, but stem.stride={spec.stem.stride} does not")


def _require_stages(stages: Sequence[int], count: int) -> None:
    for stage in stages:
        if not -count <= stage < count:
            raise ValueError(f"drop_block.stages={tuple(stages)} must lie in [{-count}, {count - 1}]")


def _require_output_stride(spec: Backbone) -> None:
    given = spec.output_stride
    if given is None:
        return
    _require_number("output_stride", given, get_args(OutputStride))
    if spec._strides[0] > given:
        raise TypeError(f"output_stride={given}: the stem already reduces the image by {spec._strides[0]}")
    if spec.pyramid != "none" and max(spec.dilations) > 1:
        raise TypeError(
            f"output_stride={given} does not work with pyramid={spec.pyramid!r}: a stage that keeps its size has no "
            "level of the image to join"
        )
    if spec.block.elastic != "none" and max(spec.dilations) > 1:
        raise TypeError(
            f"output_stride={given} does not work with block.elastic={spec.block.elastic!r}: a path of half the size "
            "has no dilated form"
        )


def _require_drop_path(spec: Backbone) -> None:
    rate = spec.drop_path_rate
    if not 0 <= rate < 1:
        raise ValueError(f"drop_path_rate={rate} must lie in [0, 1)")
    if rate and spec.fusion.maxout != "none":
        raise TypeError(
            f"drop_path_rate={rate} does not work with fusion.maxout={spec.fusion.maxout!r}: in a maximum, the zeros "
            "of a block that is left out would replace all negative numbers"
        )
