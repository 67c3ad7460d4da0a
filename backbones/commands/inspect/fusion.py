"""Share of each input in each shortcut of a network, measured on one batch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from backbones.darknet.cfg import IMAGE
from backbones.darknet.trace import trace
from backbones.errors import UserError
from backbones.layers import WeightedShortcut

MAX_DEAD_RAW = 0.001
"""Raw weight up to which relu leaves an input no share."""
MIN_EFFECTIVE = 0.01
"""Effective weight below which an input changes nothing."""


@dataclass(frozen=True)
class Branch:
    """One input of one shortcut; ``per_channel`` weights are given as means over the channels."""

    layer: int
    """Darknet's number of the shortcut; where the network has no cfg, its number among the shortcuts."""
    module: str
    """Name of the shortcut in the network."""
    input: int
    """Number of the input; 0 is the layer just before."""
    source: int | None
    """Darknet's number of the layer that the input comes from; -1: the image, None: not known."""
    raw: float | None
    """Parameter; None where the shortcut has none."""
    effective: float
    """Factor of the input."""
    share: float
    """Part of this input in the sum of magnitudes over the batch."""
    dead: bool
    """True when the input has no weight in any channel."""


@torch.no_grad()
def fusion_report(model: nn.Module, images: Tensor) -> list[Branch]:
    """Run one batch and describe every input of every shortcut, in darknet's order."""
    magnitudes: dict[nn.Module, list[float]] = {}

    def measure(module: Any, inputs: Sequence[Tensor], _output: Tensor) -> None:
        magnitudes[module] = _measure_magnitudes(module, inputs)

    shortcuts = [module for module in model.modules() if isinstance(module, WeightedShortcut)]
    hooks = [module.register_forward_hook(measure) for module in shortcuts]
    was_training = model.training
    model.eval()(images)
    model.train(was_training)
    for hook in hooks:
        hook.remove()
    return [
        branch
        for layer, name, module, sources in _find_shortcuts(model)
        for branch in _describe_inputs(layer, name, module, sources, magnitudes[module])
    ]


_Shortcut = tuple[int, str, WeightedShortcut, Sequence[int | None]]


def _find_shortcuts(model: nn.Module) -> list[_Shortcut]:
    """Return (number, name, module, sources of the inputs) of each shortcut, numbered as in its cfg if it has one."""
    try:
        traced = trace(model)
    except UserError:  # an option without a cfg, such as sigmoid shares
        shortcuts = [(name, module) for name, module in model.named_modules() if isinstance(module, WeightedShortcut)]
        return [(i, name, module, [None] * len(module.channels)) for i, (name, module) in enumerate(shortcuts)]
    return [
        (layer, name, module, _sources(traced.cfg.layers, layer))
        for layer, (module, name) in enumerate(zip(traced.modules, traced.names, strict=True))
        if isinstance(module, WeightedShortcut)
    ]


def _sources(layers: Sequence[Any], layer: int) -> list[int]:
    others = [source + layer if source < 0 else source for source in layers[layer]["from"]]
    return [layer - 1 if layer else IMAGE, *others]


def _describe_inputs(
    layer: int, name: str, module: WeightedShortcut, sources: Sequence[int | None], magnitudes: Sequence[float]
) -> list[Branch]:
    shares = module.effective_weights()
    total = sum(magnitudes) or 1.0
    return [
        Branch(
            layer=layer,
            module=name,
            input=index,
            source=source,
            raw=None if module.weight is None else module.weight[index].mean().item(),
            effective=1.0 if shares is None else shares[index].mean().item(),
            share=magnitudes[index] / total,
            dead=_is_dead(module, shares, index),
        )
        for index, source in enumerate(sources)
    ]


def _is_dead(module: WeightedShortcut, shares: Tensor | None, index: int) -> bool:
    if module.weight is None or shares is None:
        return False
    silent = shares[index].abs() < MIN_EFFECTIVE
    if module.normalization == "relu":
        silent |= module.weight[index] <= MAX_DEAD_RAW
    return bool(silent.all())


def _measure_magnitudes(module: WeightedShortcut, inputs: Sequence[Tensor]) -> list[float]:
    """Return the mean magnitude of each weighted input over all values of the output."""
    width = inputs[0].shape[1]
    shares = module.effective_weights()
    found = []
    for index, x in enumerate(inputs):
        part = x[:, :width].abs().mean((0, 2, 3))
        factors = 1.0 if shares is None else shares[index].abs().expand(width)[: len(part)]
        found.append((part * factors).sum().item() / width)
    return found
