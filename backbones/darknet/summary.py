"""Darknet's table of a network, with one line for each layer, as darknet prints it when it reads a cfg."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from torch import nn

from backbones.darknet.shapes import DEFAULT_BLOCK_SIZE, Layer, Shape, infer_layers, pool_geometry, strides
from backbones.darknet.trace import trace

HEADING = "   layer   filters  size/strd(dil)      input                output"
LEVELS = {"C2": 4, "C3": 8, "C4": 16, "C5": 32}
"""Name that detectors give a feature level -> its reduction."""
_WEIGHTS_CODES = {"none": 0, "per_feature": 1, "per_channel": 2}
_NORMALIZATION_CODES = {"none": 0, "relu": 1, "softmax": 2}


def summary(layers: Sequence[Layer]) -> str:
    """Return the table, its totals and the feature levels."""
    rows = [text for layer in layers for text in (line(layer), *_format_sizes(layer))]
    lines = [HEADING, *rows, *_format_totals(layers), *_format_levels(layers)]
    return "".join(f"{text}\n" for text in lines)


def line(layer: Layer) -> str:
    """Return one line of the table."""
    form = _LINES.get(layer.kind)
    text = f"{layer.kind:<28} {_format_change(layer)}" if form is None else form(layer)
    return f"{layer.index:4d} {text}".rstrip()


def figures(layer: Layer) -> dict[str, Any]:
    """Return the figures of one layer as plain types; sizes are (width, height, channels)."""
    return {
        "index": layer.index,
        "type": layer.kind,
        "filters": layer.section["filters"] if layer.kind == "convolutional" else None,
        "input": _list_sides(layer.input),
        "output": _list_sides(layer.output),
        "from": layer.sources,
        "parameters": layer.parameters,
        "bflops": round(_count_bflops(layer), 6),
    }


def total_bflops(layers: Sequence[Layer]) -> float:
    """Return darknet's BFLOPs of all layers, in 10^9 operations.

    Darknet keeps the figure of a layer in single precision; so does this sum, and the last digit agrees.
    """
    return sum(float(np.float32(_count_bflops(layer))) for layer in layers)


def _count_bflops(layer: Layer) -> float:
    """Return darknet's figure of a layer. It counts nothing for a fully connected one."""
    return 0.0 if layer.kind == "connected" else layer.flops / 1e9


def bflops(model: nn.Module, size: int = 256) -> float:
    """Return darknet's BFLOPs of ``model`` for one square image, in 10^9 operations.

    Two operations for each multiplication of a convolution, one for each cell that a pool compares or a shortcut
    adds, two if the shortcut is weighted. Fully connected layers, batch normalization and activations are free. The
    model is not changed.

    Args:
        model: one of our backbones with any options, or a network from a cfg.
        size: height and width of the image.

    Raises:
        UserError: darknet has no such network.
    """
    return total_bflops(infer_layers(trace(model).cfg, size=size))


def gmacs(layers: Sequence[Layer]) -> float:
    """Return the multiplications of convolutions and connected layers, in 10^9."""
    return sum(layer.flops for layer in layers if layer.kind in ("convolutional", "connected")) / 2e9


def feature_levels(layers: Sequence[Layer]) -> dict[str, Layer]:
    """Return, for each name in `LEVELS`, the last layer of that resolution before the head."""
    image = layers[0].input
    last = {_find_stride(image, layer): layer for layer in _cut_head(layers) if layer.kind != "route"}
    return {name: last[reduction] for name, reduction in LEVELS.items() if reduction in last}


def _cut_head(layers: Sequence[Layer]) -> list[Layer]:
    """Return the layers before the global pool, or before the first flat layer."""
    head = ("avgpool", "connected", "softmax", "cost")
    end = next((index for index, layer in enumerate(layers) if layer.kind in head), len(layers))
    return list(layers[:end])


def _format_totals(layers: Sequence[Layer]) -> list[str]:
    trained, statistics = (sum(getattr(layer, name) for layer in layers) for name in ("parameters", "statistics"))
    fusion = sum(layer.parameters for layer in layers if layer.kind == "shortcut")
    return [
        f"Total BFLOPS {total_bflops(layers):.6f}",
        f"Total GMACs {gmacs(layers):.6f}",
        f"Parameters {trained:,} ({fusion:,} of them fusion weights), running statistics {statistics:,}",
    ]


def _format_levels(layers: Sequence[Layer]) -> list[str]:
    image = layers[0].input
    return [
        f"{name}: stride {_find_stride(image, layer)}, {layer.output.channels} channels, layer {layer.index}"
        for name, layer in feature_levels(layers).items()
    ]


def _find_stride(image: Shape, layer: Layer) -> int:
    """Return the power of two nearest to the ratio of the heights; odd heights are rounded in between."""
    return 2 ** round(math.log2(image.height / layer.output.height))


def _list_sides(shape: Shape) -> tuple[int, int, int]:
    return shape.width, shape.height, shape.channels


def _format_shape(shape: Shape) -> str:
    return f"{shape.width:4d} x{shape.height:4d} x{shape.channels:4d}"


def _format_change(layer: Layer) -> str:
    return f"{_format_shape(layer.input)} -> {_format_shape(layer.output)}"


def _format_cost(layer: Layer) -> str:
    return f"{layer.flops / 1e9:.6f} BF"


def _format_convolutional(layer: Layer) -> str:
    section = layer.section
    filters, groups, size, dilation = (section[key] for key in ("filters", "groups", "size", "dilation"))
    down, across = strides(section)
    shown = f"{filters:5d}/{groups:4d}" if groups > 1 else f"{filters:5d}     "
    dilated = f"({dilation})" if dilation > 1 else "   "
    window = (
        f"{size:2d} x{size:2d}/{across:2d}{dilated}"
        if across == down
        else f"{size:2d}x{size:2d}/{across:2d}x{down:2d} "
    )
    return f"conv  {shown} {window} {_format_change(layer)} {_format_cost(layer)}"


def _format_pool(layer: Layer) -> str:
    section = layer.section
    depth = layer.kind == "maxpool" and section["maxpool_depth"]
    name = "max-depth" if depth else {"maxpool": "max", "local_avgpool": "avg"}[layer.kind]
    size, stride, _ = pool_geometry(section)
    return f"{name:<18} {size:2d}x{size:2d}/{stride:2d}    {_format_change(layer)} {_format_cost(layer)}"


def _format_route(layer: Layer) -> str:
    groups = layer.section["groups"]
    part = f" {layer.section['group_id']}/{groups}" if groups > 1 else ""
    return f"{'route ' + ' '.join(map(str, layer.sources)) + part:<46} -> {_format_shape(layer.output)}"


def _format_shortcut(layer: Layer) -> str:
    weights, normalization = layer.section["weights_type"], layer.section["weights_normalization"]
    codes = f"wt = {_WEIGHTS_CODES[weights]}, wn = {_NORMALIZATION_CODES[normalization]}"
    sources = ", ".join(map(str, layer.sources))
    return f"Shortcut Layer: {sources},  {codes}, outputs:{_format_shape(layer.output)} {_format_cost(layer)}"


def _format_sizes(layer: Layer) -> list[str]:
    """Return darknet's lines below a shortcut, one for each source of another shape."""
    if layer.kind != "shortcut":
        return []
    first, *others = layer.input_shapes
    return [f" ({_format_shape(first)}) + ({_format_shape(other)})" for other in others if other != first]


def _format_crop(layer: Layer) -> str:
    (_, height, width), (channels, rows, columns) = layer.input, layer.output
    return f"Crop Layer: {height} x {width} -> {rows} x {columns} x {channels} image"


def _format_dropout(layer: Layer) -> str:
    section, cells = layer.section, layer.input.cells
    absolute, relative = section["dropblock_size_abs"], section["dropblock_size_rel"]
    if not section["dropblock"]:
        return f"dropout    p = {section['probability']:.3f} {cells:18d} -> {cells:6d}"
    size = f"rel = {relative:.2f}" if relative and not absolute else f"abs = {absolute or DEFAULT_BLOCK_SIZE}"
    return f"dropblock    p = {section['probability']:.3f}   l.dropblock_size_{size} {cells:7d} -> {cells:6d}"


def _format_reorg(layer: Layer) -> str:
    name = {"reorg": "reorg_old", "reorg3d": "reorg"}[layer.kind]
    return f"{name:<22} /{layer.section['stride']:2d}  {_format_change(layer)}"


def _format_upsample(layer: Layer) -> str:
    stride = layer.section["stride"]
    return f"{'upsample' if stride > 0 else 'downsample':<23} {abs(stride):2d}x  {_format_change(layer)}"


def _format_norm(layer: Layer) -> str:
    channels, height, width = layer.input
    return f"Batch Normalization Layer: {width} x {height} x {channels} image"


_LINES: dict[str, Callable[[Layer], str]] = {
    "convolutional": _format_convolutional,
    "maxpool": _format_pool,
    "local_avgpool": _format_pool,
    "avgpool": lambda it: f"{'avg':<28} {_format_shape(it.input)} -> {it.output.channels:6d}",
    "route": _format_route,
    "shortcut": _format_shortcut,
    "softmax": lambda it: f"{'softmax':<46} {it.output.channels:6d}",
    "cost": lambda it: f"{'cost':<46} {it.output.cells:6d}",
    "connected": lambda it: f"{'connected':<39} {it.input.cells:6d} -> {it.output.channels:6d}",
    "dropout": _format_dropout,
    "crop": _format_crop,
    "reorg": _format_reorg,
    "reorg3d": _format_reorg,
    "upsample": _format_upsample,
    "batchnorm": _format_norm,
    "scale_channels": lambda it: f"scale Layer: {it.sources[0]}",
    "sam": lambda it: f"scale Layer: {it.sources[0]}",
    "activation": lambda it: f"Activation Layer: {it.input.cells} inputs",
    "empty": lambda _: "empty",
}
"""Kind of layer -> its line; other kinds show their name and the change of shape."""
