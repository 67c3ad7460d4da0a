"""Darknet's table of a network: one line for each layer, as it prints them when it reads a cfg."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from backbones.darknet.plan import Layer, Shape, pool_geometry

HEADING = "   layer   filters  size/strd(dil)      input                output"
LEVELS = (4, 8, 16, 32)
"""Reductions of C2, C3, C4 and C5."""
_CODES = {"none": 0, "per_feature": 1, "per_channel": 2}, {"none": 0, "relu": 1, "softmax": 2}


def summary(layers: Sequence[Layer]) -> str:
    """Return the table, its totals and the feature levels."""
    return "\n".join([HEADING, *(line(layer) for layer in layers), *_totals(layers), *_levels(layers)]) + "\n"


def line(layer: Layer) -> str:
    """Return one line of the table."""
    return f"{layer.index:4d} {_LINES.get(layer.kind, _other)(layer)}".rstrip()


def figures(layer: Layer) -> dict[str, Any]:
    """Return what the table says about one layer, as plain types; sizes are (width, height, channels)."""
    return {
        "index": layer.index,
        "type": layer.kind,
        "filters": layer.section["filters"] if layer.kind == "convolutional" else None,
        "input": _size(layer.input),
        "output": _size(layer.output),
        "from": layer.sources,
        "parameters": layer.parameters,
        "bflops": round(layer.flops / 1e9, 6),
    }


def total_bflops(layers: Sequence[Layer]) -> float:
    """Add up the layers' figures, which darknet keeps in single precision, so that the last digit agrees."""
    return sum(float(np.float32(layer.flops / 1e9)) for layer in layers)


def gmacs(layers: Sequence[Layer]) -> float:
    """Return the multiplications of convolutions and connected layers, in 10^9."""
    return sum(layer.flops for layer in layers if layer.kind in ("convolutional", "connected")) / 2e9


def feature_levels(layers: Sequence[Layer]) -> dict[str, Layer]:
    """Return the last layer of each resolution before the head, by the name that detectors give it."""
    image = layers[0].input
    last = {_stride(image, layer): layer for layer in _body(layers) if layer.kind != "route"}
    return {f"C{level}": last[stride] for level, stride in enumerate(LEVELS, 2) if stride in last}


def _body(layers: Sequence[Layer]) -> list[Layer]:
    """Return the layers before the global pool, or before what is flat."""
    head = ("avgpool", "connected", "softmax", "cost")
    end = next((index for index, layer in enumerate(layers) if layer.kind in head), len(layers))
    return list(layers[:end])


def _totals(layers: Sequence[Layer]) -> list[str]:
    trained, statistics = (sum(getattr(layer, name) for layer in layers) for name in ("parameters", "statistics"))
    fusion = sum(layer.parameters for layer in layers if layer.kind == "shortcut")
    return [
        f"Total BFLOPS {total_bflops(layers):.6f}",
        f"Total GMACs {gmacs(layers):.6f}",
        f"Parameters {trained:,} ({fusion:,} of them fusion weights), running statistics {statistics:,}",
    ]


def _levels(layers: Sequence[Layer]) -> list[str]:
    image = layers[0].input
    return [
        f"{name}: stride {_stride(image, layer)}, {layer.output.channels} channels, layer {layer.index}"
        for name, layer in feature_levels(layers).items()
    ]


def _stride(image: Shape, layer: Layer) -> int:
    """Return the power of two by which a map is smaller than the image; odd sizes are rounded on the way."""
    return 2 ** round(math.log2(image.height / layer.output.height))


def _size(shape: Shape) -> tuple[int, int, int]:
    return shape.width, shape.height, shape.channels


def _shown(shape: Shape) -> str:
    return f"{shape.width:4d} x{shape.height:4d} x{shape.channels:4d}"


def _arrow(layer: Layer) -> str:
    return f"{_shown(layer.input)} -> {_shown(layer.output)}"


def _cost(layer: Layer) -> str:
    return f"{layer.flops / 1e9:.6f} BF"


def _convolutional(layer: Layer) -> str:
    section = layer.section
    filters, groups, size, dilation = (section[key] for key in ("filters", "groups", "size", "dilation"))
    across, down = section["stride_x"] or section["stride"], section["stride_y"] or section["stride"]
    shown = f"{filters:5d}/{groups:4d}" if groups > 1 else f"{filters:5d}     "
    step = f"{across}" if across == down else f"{across}x{down}"
    dilated = f"({dilation})" if dilation > 1 else "   "
    return f"conv  {shown} {size:2d} x{size:2d}/{step:>2}{dilated} {_arrow(layer)} {_cost(layer)}"


def _pool(layer: Layer) -> str:
    section = layer.section
    depth = layer.kind == "maxpool" and section["maxpool_depth"]
    name = "max-depth" if depth else {"maxpool": "max", "local_avgpool": "avg"}[layer.kind]
    size, stride, _ = pool_geometry(section)
    return f"{name:<16} {size:2d} x{size:2d}/{stride:2d}    {_arrow(layer)} {_cost(layer)}"


def _route(layer: Layer) -> str:
    groups = layer.section["groups"]
    part = f" {layer.section['group_id']}/{groups}" if groups > 1 else ""
    return f"{'route ' + ' '.join(map(str, layer.sources)) + part:<46} -> {_shown(layer.output)}"


def _shortcut(layer: Layer) -> str:
    weights, normalization = layer.section["weights_type"], layer.section["weights_normalization"]
    codes = f"wt = {_CODES[0][weights]}, wn = {_CODES[1][normalization]}"
    sources = ", ".join(map(str, layer.sources))
    return f"Shortcut Layer: {sources},  {codes}, outputs:{_shown(layer.output)} {_cost(layer)}"


def _avgpool(layer: Layer) -> str:
    return f"{'avg':<28} {_shown(layer.input)} -> {layer.output.channels:6d}"


def _softmax(layer: Layer) -> str:
    return f"{'softmax':<46} {layer.output.channels:6d}"


def _connected(layer: Layer) -> str:
    return f"{'connected':<39} {layer.input.cells:6d} -> {layer.output.channels:6d} {_cost(layer)}"


def _dropout(layer: Layer) -> str:
    return f"dropout    p = {layer.section['probability']:.3f} {layer.input.cells:18d} -> {layer.output.cells:6d}"


def _other(layer: Layer) -> str:
    return f"{layer.kind:<28} {_arrow(layer)}"


_LINES: dict[str, Callable[[Layer], str]] = {
    "convolutional": _convolutional,
    "maxpool": _pool,
    "local_avgpool": _pool,
    "avgpool": _avgpool,
    "route": _route,
    "shortcut": _shortcut,
    "softmax": _softmax,
    "connected": _connected,
    "dropout": _dropout,
}
