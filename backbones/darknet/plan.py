"""What every layer of a cfg reads, how large it is and what it costs, in whole numbers: nothing is allocated."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from backbones.darknet.cfg import IMAGE, Cfg, Section
from backbones.errors import UserError

MAX_PARAMETERS = 10**9
MAX_CELLS = 10**9


class Shape(NamedTuple):
    """Of one image's feature map."""

    channels: int
    height: int
    width: int

    @property
    def cells(self) -> int:
        """Numbers in it."""
        return math.prod(self)

    @property
    def area(self) -> int:
        """Cells in one channel."""
        return self.height * self.width


@dataclass(frozen=True)
class Layer:
    """One layer of a cfg, placed in its network."""

    index: int
    """Darknet's number, from 0."""
    section: Section
    """What the cfg says."""
    input: Shape
    """What it is computed from; for a route the concatenation."""
    output: Shape
    sources: tuple[int, ...] = ()
    """The layers named by ``from`` or ``layers``, as absolute numbers."""
    inputs: tuple[int, ...] = ()
    """The layers whose outputs it is called with; -1 is the image. What stands behind a dropout is read there: darknet
    drops in place."""
    input_channels: tuple[int, ...] = ()
    """Channels of each of ``inputs``."""
    parameters: int = 0
    """Trained numbers, fusion weights included."""
    statistics: int = 0
    """Running means and variances."""
    flops: int = 0
    """Operations on one image as darknet counts them, 2 for each multiplication with its addition."""

    @property
    def kind(self) -> str:
        """Name of the section."""
        return self.section.kind


def plan(cfg: Cfg, *, size: int | None = None) -> tuple[Layer, ...]:
    """Work out every layer of ``cfg``, for square images of ``size`` pixels where it is given.

    Raises:
        UserError: a layer that cannot be; the message names file, line and option.
    """
    net = cfg.net
    image = Shape(net["channels"], size or net["height"], size or net["width"])
    layers: list[Layer] = []
    total = 0
    for index, section in enumerate(cfg.layers):
        layer = _RULES[section.kind](_Place(index, section, image, layers))
        total += layer.parameters
        _require_at_most(MAX_PARAMETERS, total, "parameters", section)
        _require_at_most(MAX_CELLS, layer.output.cells, "cells for each image", section)
        layers.append(layer)
    return tuple(layers)


def _require_at_most(limit: int, found: int, what: str, section: Section) -> None:
    if found > limit:
        raise section.error(_CULPRITS.get(section.kind, "stride"), f"makes {found:,} {what}, more than {limit:,}")


_CULPRITS = {"convolutional": "filters", "connected": "output", "shortcut": "from", "route": "layers"}


@dataclass(frozen=True)
class _Place:
    """A section and what stands before it."""

    index: int
    section: Section
    image: Shape
    layers: Sequence[Layer]

    @property
    def previous(self) -> Shape:
        return self.shape(self.index - 1)

    def shape(self, index: int) -> Shape:
        return self.image if index == IMAGE else self.layers[index].output

    def absolute(self, option: str, value: int) -> int:
        """Return the number of the layer that ``value`` names: negative counts back from here."""
        index = value + self.index if value < 0 else value
        if not 0 <= index < self.index:
            raise self.section.error(option, f"must name an earlier layer: this is layer {self.index}")
        return index

    def layer(self, output: Shape, *, sources: tuple[int, ...] = (), parameters: int = 0, flops: int = 0) -> Layer:
        reads = (self.index - 1, *sources)
        return Layer(
            index=self.index,
            section=self.section,
            input=self.previous,
            output=output,
            sources=sources,
            inputs=tuple(self._after_dropout(index) for index in reads),
            input_channels=tuple(self.shape(index).channels for index in reads),
            parameters=parameters,
            flops=flops,
        )

    def routed(self, output: Shape, *, sources: tuple[int, ...], input_: Shape) -> Layer:
        """Return a layer that reads ``sources`` only."""
        layer = self.layer(output, sources=sources)
        return replace(layer, input=input_, inputs=layer.inputs[1:], input_channels=layer.input_channels[1:])

    def _after_dropout(self, index: int) -> int:
        while index + 1 < self.index and self.layers[index + 1].kind == "dropout":
            index += 1
        return index

    def strides(self) -> tuple[int, int]:
        """Return (vertical, horizontal)."""
        section = self.section
        return section["stride_y"] or section["stride"], section["stride_x"] or section["stride"]


def padding(section: Section) -> int:
    """Return the cells that a convolution adds on each side: ``pad=1`` means half the kernel."""
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


def _convolutional(place: _Place) -> Layer:
    section, (channels, height, width) = place.section, place.previous
    filters, size, groups, pad = section["filters"], section["size"], section["groups"], padding(section)
    for option, divided, name in (("groups", channels, "input channels"), ("groups", filters, "filters")):
        if divided % groups:
            raise section.error(option, f"does not divide the {divided} {name}")
    dilation = section["dilation"]
    if dilation > 1 and 2 * pad != size - 1:
        raise section.error("dilation", "needs an odd size and pad=1: darknet's size of the output is wrong otherwise")
    strides = (1, 1) if section["antialiasing"] else place.strides()
    full = Shape(filters, *_steps(section, (height, width), size, 2 * pad, strides))
    weights = filters * (channels // groups) * size * size
    norm = section["batch_normalize"]
    layer = place.layer(
        _blurred(place, full),
        parameters=weights + filters * (2 if norm else 1),
        flops=2 * weights * full.area,
    )
    return replace(layer, statistics=2 * filters if norm else 0)


def _steps(
    section: Section, lengths: tuple[int, int], size: int, both_sides: int, strides: tuple[int, int]
) -> tuple[int, ...]:
    """Return how many windows fit into height and width."""
    counts = tuple((length + both_sides - size) // stride + 1 for length, stride in zip(lengths, strides, strict=True))
    if min(counts) < 1:
        raise section.error("size", f"is larger than its input of {lengths[1]} x {lengths[0]} with its padding")
    return counts


def _blurred(place: _Place, full: Shape) -> Shape:
    if not place.section["antialiasing"]:
        return full
    kernel, pad = blur_geometry(place.section)
    return Shape(full.channels, *_steps(place.section, (full.height, full.width), kernel, 2 * pad, place.strides()))


def _maxpool(place: _Place) -> Layer:
    section, before = place.section, place.previous
    if section["maxpool_depth"]:
        wanted = section["out_channels"]
        if wanted > before.channels:
            raise section.error("out_channels", f"is more than the {before.channels} channels of the input")
        return place.layer(before._replace(channels=wanted), flops=before.cells)
    return _pool(place)


def _pool(place: _Place) -> Layer:
    section, before = place.section, place.previous
    down, across = place.strides()
    if down != across:
        option = "stride_x" if "stride_x" in section.values else "stride_y"
        raise section.error(option, f"makes steps of {down} down and {across} across: pools here have one stride")
    size, stride, pad = pool_geometry(section)
    if pad > 2 * size - 2:
        raise section.error("padding", f"is more than {2 * size - 2}: a window would hold no cell")
    smooth = section.kind == "maxpool" and section["antialiasing"]
    counts = _steps(section, (before.height, before.width), size, pad, (1, 1) if smooth else (stride, stride))
    full = Shape(before.channels, *counts)
    flops = size * size * before.channels * full.area
    return place.layer(_blurred(place, full) if smooth else full, flops=flops)


def _avgpool(place: _Place) -> Layer:
    return place.layer(Shape(place.previous.channels, 1, 1))


def _route(place: _Place) -> Layer:
    section = place.section
    sources = tuple(place.absolute("layers", value) for value in section["layers"])
    shapes = [place.shape(index) for index in sources]
    groups = section["groups"]
    for index, shape in zip(sources, shapes, strict=True):
        if shape[1:] != shapes[0][1:]:
            raise section.error(
                "layers", f"joins {_size(shapes[0])} of layer {sources[0]} with {_size(shape)} of layer {index}"
            )
        if shape.channels % groups:
            raise section.error("groups", f"does not divide the {shape.channels} channels of layer {index}")
    if section["group_id"] >= groups:
        raise section.error("group_id", f"must be less than groups={groups}")
    whole = shapes[0]._replace(channels=sum(shape.channels for shape in shapes))
    return place.routed(whole._replace(channels=whole.channels // groups), sources=sources, input_=whole)


def _shortcut(place: _Place) -> Layer:
    section, before = place.section, place.previous
    sources = tuple(place.absolute("from", value) for value in section["from"])
    for index in sources:
        _require_same_size(place, index)
    columns = {"none": 0, "per_feature": 1, "per_channel": before.channels}[section["weights_type"]]
    if columns and section["weights_normalization"] == "none":
        raise section.error("weights_type", "needs weights_normalization=relu or softmax")
    flops = before.cells * len(sources) * (2 if columns else 1)
    return place.layer(before, sources=sources, parameters=columns * (len(sources) + 1), flops=flops)


def _require_same_size(place: _Place, index: int) -> None:
    shape, before = place.shape(index), place.previous
    if shape[1:] != before[1:]:
        rule = f"adds {_size(shape)} of layer {index} to {_size(before)} of layer {place.index - 1}"
        raise place.section.error("from", rule)


def _reorg(place: _Place) -> Layer:
    section, (channels, height, width) = place.section, place.previous
    stride = section["stride"]
    square = stride * stride
    if section["reverse"]:
        divisor = square * square if section.kind == "reorg3d" else square
        _require_divides(section, divisor, channels, "channels")
        return place.layer(Shape(channels // square, height * stride, width * stride))
    _require_divides(section, stride, height, "height")
    _require_divides(section, stride, width, "width")
    if section.kind == "reorg":
        _require_divides(section, square, channels, "channels")
    return place.layer(Shape(channels * square, height // stride, width // stride))


def _require_divides(section: Section, divisor: int, size: int, what: str) -> None:
    if size % divisor:
        raise section.error("stride", f"does not fit: the {what} {size} of the input must be a multiple of {divisor}")


def _same(place: _Place) -> Layer:
    return place.layer(place.previous)


def _scale_channels(place: _Place) -> Layer:
    section, before = place.section, place.previous
    source = place.absolute("from", section["from"])
    scaled = place.shape(source)
    fits = before == scaled._replace(channels=1) if section["scale_wh"] else before == (scaled.channels, 1, 1)
    if not fits:
        raise section.error(
            "from", f"is {tuple(scaled)}, which {tuple(before)} of layer {place.index - 1} cannot scale"
        )
    return place.layer(scaled, sources=(source,))


def _sam(place: _Place) -> Layer:
    source = place.absolute("from", place.section["from"])
    if place.shape(source) != place.previous:
        rule = f"is {tuple(place.shape(source))}, but layer {place.index - 1} is {tuple(place.previous)}"
        raise place.section.error("from", rule)
    return place.layer(place.previous, sources=(source,))


def _upsample(place: _Place) -> Layer:
    section, (channels, height, width) = place.section, place.previous
    stride = section["stride"]
    if stride == 0:
        raise section.error("stride", "must not be 0")
    if stride > 0:
        return place.layer(Shape(channels, height * stride, width * stride))
    _require_divides(section, -stride, height, "height")
    _require_divides(section, -stride, width, "width")
    return place.layer(Shape(channels, height // -stride, width // -stride))


def _connected(place: _Place) -> Layer:
    section, cells = place.section, place.previous.cells
    outputs, norm = section["output"], section["batch_normalize"]
    layer = place.layer(
        Shape(outputs, 1, 1), parameters=outputs * (cells + (2 if norm else 1)), flops=2 * cells * outputs
    )
    return replace(layer, statistics=2 * outputs if norm else 0)


def _batchnorm(place: _Place) -> Layer:
    channels = place.previous.channels
    return replace(place.layer(place.previous, parameters=2 * channels), statistics=2 * channels)


def _softmax(place: _Place) -> Layer:
    cells = place.previous.cells
    if cells % place.section["groups"]:
        raise place.section.error("groups", f"does not divide the {cells} inputs")
    return place.layer(Shape(cells, 1, 1))


def _size(shape: Shape) -> str:
    return f"{shape.width} x {shape.height}"


_RULES: dict[str, Callable[[_Place], Layer]] = {
    "convolutional": _convolutional,
    "maxpool": _maxpool,
    "local_avgpool": _pool,
    "avgpool": _avgpool,
    "route": _route,
    "shortcut": _shortcut,
    "reorg": _reorg,
    "reorg3d": _reorg,
    "dropout": _same,
    "scale_channels": _scale_channels,
    "sam": _sam,
    "upsample": _upsample,
    "connected": _connected,
    "batchnorm": _batchnorm,
    "softmax": _softmax,
    "cost": _same,
}


def require_classes(layers: Sequence[Layer], wanted: int) -> None:
    """Refuse a network whose classifier has another number of outputs than ``wanted``."""
    found = class_count(layers)
    if found != wanted:
        last = classifier_layer(layers).section
        raise UserError(
            f"{last.file}:{last.line}: the network has {found} outputs, but {wanted} classes are wanted: "
            f"change {_CULPRITS.get(last.kind, 'it')} of this section"
        )


def class_count(layers: Sequence[Layer]) -> int:
    """Return the number of logits."""
    return layers[logits_layer(layers)].output.cells


def logits_layer(layers: Sequence[Layer]) -> int:
    """Return the number of the last layer before softmax and cost."""
    return max((layer.index for layer in layers if layer.kind not in ("softmax", "cost")), default=0)


def classifier_layer(layers: Sequence[Layer]) -> Layer:
    """Return the last layer with weights of its own."""
    return next((layer for layer in reversed(layers) if layer.kind in _CULPRITS and layer.parameters), layers[-1])
