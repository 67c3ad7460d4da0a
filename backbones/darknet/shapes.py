"""Inputs, shape, parameters and cost of every layer of a cfg, worked out in whole numbers without any memory."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from backbones.darknet.cfg import IMAGE, Cfg, Section
from backbones.errors import UserError

MAX_PARAMETERS = 10**9
MAX_CELLS = 10**9
DEFAULT_BLOCK_SIZE = 7
"""Side of DropBlock's blocks in a cfg that gives none."""


class Shape(NamedTuple):
    """Shape of one image's feature map."""

    channels: int
    height: int
    width: int

    @property
    def cells(self) -> int:
        """Return how many numbers the map has."""
        return math.prod(self)

    @property
    def area(self) -> int:
        """Return how many cells one channel has."""
        return self.height * self.width


@dataclass(frozen=True)
class Layer:
    """One layer of a cfg with what follows from the layers before it."""

    index: int
    """Darknet's number, from 0."""
    section: Section
    """Options from the cfg."""
    input: Shape
    """Shape of the input; for a route that of the concatenation."""
    output: Shape
    """Shape of the output."""
    sources: tuple[int, ...] = ()
    """Layers named by ``from`` or ``layers``, as absolute numbers."""
    inputs: tuple[int, ...] = ()
    """Layers whose outputs the module is called with; -1 is the image. A layer that is followed by a dropout is read
    after the dropout, because darknet drops in context."""
    input_shapes: tuple[Shape, ...] = ()
    """Channels of each of ``inputs``."""
    parameters: int = 0
    """Number of trained values, fusion weights included."""
    statistics: int = 0
    """Number of running means and variances."""
    flops: int = 0
    """Operations on one image as darknet counts them: 2 for each multiplication with its addition."""

    @property
    def input_channels(self) -> tuple[int, ...]:
        """Return the channels of each of ``inputs``."""
        return tuple(shape.channels for shape in self.input_shapes)

    @property
    def is_strided(self) -> bool:
        """Return whether a shortcut adds maps of two sizes, or with factors, which only pjreddie's darknet does."""
        factors = (self.section["alpha"], self.section["beta"])
        return factors != (1, 1) or any(shape[1:] != self.output[1:] for shape in self.input_shapes)

    @property
    def kind(self) -> str:
        """Return the name of the section."""
        return self.section.kind


def infer_layers(cfg: Cfg, *, size: int | None = None) -> tuple[Layer, ...]:
    """Return every layer of ``cfg`` with its inputs, shapes and cost.

    Args:
        cfg: a network.
        size: height and width of the image in place of the ones in the cfg.

    Raises:
        UserError: a layer cannot exist; the message names file, line and option.
    """
    net = cfg.net
    image = Shape(net["channels"], size or net["height"], size or net["width"])
    layers: list[Layer] = []
    total = 0
    for index, section in enumerate(cfg.layers):
        layer = _RULES[section.kind](_Context(index, section, image, layers))
        total += layer.parameters
        _require_at_most(MAX_PARAMETERS, total, "parameters", section)
        _require_at_most(MAX_CELLS, layer.output.cells, "cells for each image", section)
        layers.append(layer)
    return tuple(layers)


def _require_at_most(limit: int, found: int, what: str, section: Section) -> None:
    if found > limit:
        raise section.error(_SIZE_OPTIONS.get(section.kind, "stride"), f"makes {found:,} {what}, more than {limit:,}")


_SIZE_OPTIONS = {"convolutional": "filters", "connected": "output", "shortcut": "from", "route": "layers"}
"""Section -> the option that decides the size of its layer, for errors."""


@dataclass(frozen=True)
class _Context:
    """A section and the layers before it."""

    index: int
    section: Section
    image: Shape
    layers: Sequence[Layer]

    @property
    def previous(self) -> Shape:
        return self.shape_of(self.index - 1)

    def shape_of(self, index: int) -> Shape:
        return self.image if index == IMAGE else self.layers[index].output

    def resolve(self, option: str, value: int) -> int:
        """Return the number of the layer that ``value`` names; a negative one counts back from this layer."""
        index = value + self.index if value < 0 else value
        if not 0 <= index < self.index:
            raise self.section.error(option, f"must name an earlier layer: this is layer {self.index}")
        return index

    def create_layer(self, output: Shape, *, sources: tuple[int, ...] = (), **figures: int) -> Layer:
        """Return a layer that reads the layer before it and ``sources``; ``figures`` are its numbers and cost."""
        reads = (self.index - 1, *sources)
        return Layer(
            index=self.index,
            section=self.section,
            input=self.previous,
            output=output,
            sources=sources,
            inputs=tuple(self._skip_dropout(index) for index in reads),
            input_shapes=tuple(self.shape_of(index) for index in reads),
            **figures,
        )

    def create_route(self, output: Shape, *, sources: tuple[int, ...], input_: Shape) -> Layer:
        """Return a layer that reads ``sources``, but not the layer before it."""
        layer = self.create_layer(output, sources=sources)
        return replace(layer, input=input_, inputs=layer.inputs[1:], input_shapes=layer.input_shapes[1:])

    def _skip_dropout(self, index: int) -> int:
        while index + 1 < self.index and self.layers[index + 1].kind == "dropout":
            index += 1
        return index


def strides(section: Section) -> tuple[int, int]:
    """Return the vertical and the horizontal stride."""
    return section["stride_y"] or section["stride"], section["stride_x"] or section["stride"]


def padding(section: Section) -> int:
    """Return the cells that a convolution adds on each side; ``pad=1`` means half the kernel."""
    return section["size"] // 2 if section["pad"] else section["padding"]


def blur_geometry(section: Section) -> tuple[int, int]:
    """Return (kernel, padding) of the blur that ``antialiasing`` adds."""
    return (2, 0) if section["antialiasing"] == 2 else (3, 1)


def pool_geometry(section: Section) -> tuple[int, int, int]:
    """Return (size, stride, padding) of a pool with darknet's defaults."""
    stride = section["stride_x"] or section["stride"]
    size = section["size"] or stride
    pad = section["padding"]
    return size, stride, size - 1 if pad is None else pad


def _infer_convolutional(context: _Context) -> Layer:
    section, (channels, height, width) = context.section, context.previous
    filters, size, groups, pad = section["filters"], section["size"], section["groups"], padding(section)
    for option, divided, name in (("groups", channels, "input channels"), ("groups", filters, "filters")):
        if divided % groups:
            raise section.error(option, f"does not divide the {divided} {name}")
    dilation = section["dilation"]
    if dilation > 1 and 2 * pad != size - 1:
        raise section.error("dilation", "needs an odd size and pad=1: darknet's size of the output is wrong otherwise")
    steps = (1, 1) if section["antialiasing"] else strides(section)
    full = Shape(filters, *_count_windows(section, (height, width), size, 2 * pad, steps))
    weights = filters * (channels // groups) * size * size
    norm = section["batch_normalize"]
    return context.create_layer(
        _infer_blur(context, full),
        parameters=weights + filters * (2 if norm else 1),
        statistics=2 * filters if norm else 0,
        flops=2 * weights * full.area,
    )


def _count_windows(
    section: Section, lengths: tuple[int, int], size: int, both_sides: int, steps: tuple[int, int]
) -> tuple[int, ...]:
    """Return the numbers of windows along the height and the width."""
    counts = tuple((length + both_sides - size) // stride + 1 for length, stride in zip(lengths, steps, strict=True))
    if min(counts) < 1:
        raise section.error("size", f"is larger than its input of {lengths[1]} x {lengths[0]} with its padding")
    return counts


def _infer_blur(context: _Context, full: Shape) -> Shape:
    if not context.section["antialiasing"]:
        return full
    kernel, pad = blur_geometry(context.section)
    return Shape(
        full.channels,
        *_count_windows(context.section, (full.height, full.width), kernel, 2 * pad, strides(context.section)),
    )


def _infer_maxpool(context: _Context) -> Layer:
    section, before = context.section, context.previous
    if section["maxpool_depth"]:
        wanted = section["out_channels"]
        if wanted > before.channels:
            raise section.error("out_channels", f"is more than the {before.channels} channels of the input")
        return context.create_layer(before._replace(channels=wanted), flops=before.cells)
    return _infer_pool(context)


def _infer_pool(context: _Context) -> Layer:
    section, before = context.section, context.previous
    down, across = strides(section)
    if down != across:
        option = "stride_x" if "stride_x" in section.values else "stride_y"
        raise section.error(option, f"makes steps of {down} down and {across} across: pools here have one stride")
    size, stride, pad = pool_geometry(section)
    if pad > 2 * size - 2:
        raise section.error("padding", f"is more than {2 * size - 2}: a window would hold no cell")
    smooth = section.kind == "maxpool" and section["antialiasing"]
    counts = _count_windows(section, (before.height, before.width), size, pad, (1, 1) if smooth else (stride, stride))
    full = Shape(before.channels, *counts)
    flops = size * size * before.channels * full.area
    return context.create_layer(_infer_blur(context, full) if smooth else full, flops=flops)


def _infer_route(context: _Context) -> Layer:
    section = context.section
    sources = tuple(context.resolve("layers", value) for value in section["layers"])
    shapes = [context.shape_of(index) for index in sources]
    groups = section["groups"]
    for index, shape in zip(sources, shapes, strict=True):
        if shape[1:] != shapes[0][1:]:
            raise section.error(
                "layers",
                f"joins {_format_size(shapes[0])} of layer {sources[0]} with {_format_size(shape)} of layer {index}",
            )
        if shape.channels % groups:
            raise section.error("groups", f"does not divide the {shape.channels} channels of layer {index}")
    if section["group_id"] >= groups:
        raise section.error("group_id", f"must be less than groups={groups}")
    whole = shapes[0]._replace(channels=sum(shape.channels for shape in shapes))
    return context.create_route(whole._replace(channels=whole.channels // groups), sources=sources, input_=whole)


def _infer_shortcut(context: _Context) -> Layer:
    section, before = context.section, context.previous
    sources = tuple(context.resolve("from", value) for value in section["from"])
    for index in sources:
        _require_fitting_size(context, index)
    columns = {"none": 0, "per_feature": 1, "per_channel": before.channels}[section["weights_type"]]
    if columns and section["weights_normalization"] == "none":
        raise section.error("weights_type", "needs weights_normalization=relu or softmax")
    for option in ("alpha", "beta"):
        if section[option] != 1 and (columns or len(sources) > 1):
            raise section.error(option, "needs one source and no weights")
    flops = before.cells * len(sources) * (2 if columns else 1)
    return context.create_layer(before, sources=sources, parameters=columns * (len(sources) + 1), flops=flops)


def _require_fitting_size(context: _Context, index: int) -> None:
    """Raise `UserError` unless a plain shortcut with one source has one ratio of heights and widths."""
    section, shape, before = context.section, context.shape_of(index), context.previous
    if shape[1:] == before[1:]:
        return
    rule = f"adds {_format_size(shape)} of layer {index} to {_format_size(before)} of layer {context.index - 1}"
    if section["weights_type"] != "none" or len(section["from"]) > 1:
        raise section.error("from", f"{rule}, which only a shortcut with one source and without weights does")
    down, across = ((a // b, b // a) for a, b in zip(shape[1:], before[1:], strict=True))
    if down != across:
        raise section.error("from", f"{rule}: heights and widths have different ratios")


def _infer_reorg(context: _Context) -> Layer:
    section, (channels, height, width) = context.section, context.previous
    stride = section["stride"]
    if section.kind == "reorg" and section["extra"]:
        return context.create_layer(Shape(channels * height * width + section["extra"], 1, 1))
    square = stride * stride
    if section["reverse"]:
        divisor = square * square if section.kind == "reorg3d" else square
        _require_divides(section, divisor, channels, "channels")
        return context.create_layer(Shape(channels // square, height * stride, width * stride))
    _require_divides(section, stride, height, "height")
    _require_divides(section, stride, width, "width")
    if section.kind == "reorg":
        _require_divides(section, square, channels, "channels")
    return context.create_layer(Shape(channels * square, height // stride, width // stride))


def _require_divides(section: Section, divisor: int, size: int, what: str) -> None:
    if size % divisor:
        raise section.error("stride", f"does not fit: the {what} {size} of the input must be a multiple of {divisor}")


def _infer_crop(context: _Context) -> Layer:
    section, before = context.section, context.previous
    output = Shape(before.channels, section["crop_height"], section["crop_width"])
    for option, wanted, found in (
        ("crop_height", output.height, before.height),
        ("crop_width", output.width, before.width),
    ):
        if wanted > found:
            raise section.error(option, f"is more than the {found} cells of the input")
    return context.create_layer(output)


def _infer_scale_channels(context: _Context) -> Layer:
    section, before = context.section, context.previous
    source = context.resolve("from", section["from"])
    scaled = context.shape_of(source)
    if before != (scaled._replace(channels=1) if section["scale_wh"] else (scaled.channels, 1, 1)):
        rule = f"is {tuple(scaled)}, which {tuple(before)} of layer {context.index - 1} cannot scale"
        raise section.error("from", rule)
    return context.create_layer(scaled, sources=(source,))


def _infer_sam(context: _Context) -> Layer:
    source = context.resolve("from", context.section["from"])
    if context.shape_of(source) != context.previous:
        rule = f"is {tuple(context.shape_of(source))}, but layer {context.index - 1} is {tuple(context.previous)}"
        raise context.section.error("from", rule)
    return context.create_layer(context.previous, sources=(source,))


def _infer_upsample(context: _Context) -> Layer:
    section, (channels, height, width) = context.section, context.previous
    stride = section["stride"]
    if stride == 0:
        raise section.error("stride", "must not be 0")
    if stride > 0:
        return context.create_layer(Shape(channels, height * stride, width * stride))
    _require_divides(section, -stride, height, "height")
    _require_divides(section, -stride, width, "width")
    return context.create_layer(Shape(channels, height // -stride, width // -stride))


def _infer_connected(context: _Context) -> Layer:
    section, cells = context.section, context.previous.cells
    outputs, norm = section["output"], section["batch_normalize"]
    return context.create_layer(
        Shape(outputs, 1, 1),
        parameters=outputs * (cells + (2 if norm else 1)),
        statistics=2 * outputs if norm else 0,
        flops=2 * cells * outputs,
    )


def _infer_batchnorm(context: _Context) -> Layer:
    channels = context.previous.channels
    return context.create_layer(context.previous, parameters=2 * channels, statistics=2 * channels)


def _infer_softmax(context: _Context) -> Layer:
    cells = context.previous.cells
    if cells % context.section["groups"]:
        raise context.section.error("groups", f"does not divide the {cells} inputs")
    return context.create_layer(Shape(cells, 1, 1))


def _format_size(shape: Shape) -> str:
    return f"{shape.width} x {shape.height}"


_RULES: dict[str, Callable[[_Context], Layer]] = {
    "convolutional": _infer_convolutional,
    "maxpool": _infer_maxpool,
    "local_avgpool": _infer_pool,
    "crop": _infer_crop,
    "avgpool": lambda context: context.create_layer(Shape(context.previous.channels, 1, 1)),
    "route": _infer_route,
    "shortcut": _infer_shortcut,
    "reorg": _infer_reorg,
    "reorg3d": _infer_reorg,
    "dropout": lambda context: context.create_layer(context.previous),
    "scale_channels": _infer_scale_channels,
    "sam": _infer_sam,
    "upsample": _infer_upsample,
    "connected": _infer_connected,
    "batchnorm": _infer_batchnorm,
    "activation": lambda context: context.create_layer(context.previous),
    "empty": lambda context: context.create_layer(context.previous),
    "softmax": _infer_softmax,
    "cost": lambda context: context.create_layer(context.previous),
}


def require_classes(layers: Sequence[Layer], wanted: int) -> None:
    """Raise `UserError` unless the classifier has ``wanted`` outputs."""
    found = class_count(layers)
    if found != wanted:
        last = classifier_layer(layers).section
        raise UserError(
            f"{last.file}:{last.line}: the network has {found} outputs, but {wanted} classes are wanted: "
            f"change {_SIZE_OPTIONS.get(last.kind, 'it')} of this section"
        )


def class_count(layers: Sequence[Layer]) -> int:
    """Return the number of logits."""
    return layers[logits_layer(layers)].output.cells


def logits_layer(layers: Sequence[Layer]) -> int:
    """Return the number of the last layer before softmax and cost."""
    return max((layer.index for layer in layers if layer.kind not in ("softmax", "cost")), default=0)


def classifier_layer(layers: Sequence[Layer]) -> Layer:
    """Return the last layer with weights of its own."""
    return next((layer for layer in reversed(layers) if layer.kind in _SIZE_OPTIONS and layer.parameters), layers[-1])
