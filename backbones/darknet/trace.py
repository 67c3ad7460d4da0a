"""The cfg of a network: run it once without data and record each layer as darknet's section.

This module knows the layers, not the networks. So every variant and every option is written as it is computed.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from timm.layers.adaptive_avgmax_pool import SelectAdaptivePool2d
from timm.models._features import FeatureGetterNet
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from backbones.darknet.activation import Elementwise
from backbones.darknet.cfg import IMAGE, Cfg, Section, write_cfg
from backbones.darknet.network import DarknetNetwork
from backbones.darknet.options import Value
from backbones.errors import UserError
from backbones.layers.conv import ConvNormAct
from backbones.layers.drop_block import DropBlock2d
from backbones.layers.elastic import ChannelHalf, DoubleSize
from backbones.layers.input_pyramid import InputPyramid
from backbones.layers.maxout import Maxout
from backbones.layers.pooling import DarknetMaxPool2d, DilatedMaxPool2d, LocalAvgPool2d
from backbones.layers.reorg import DilatedReorg3d, Reorg3d
from backbones.layers.shortcut import WeightedShortcut
from backbones.models.cspnet import CspBackbone

NET: dict[str, Value] = {
    "batch": 128,
    "subdivisions": 4,
    "label_smooth_eps": 0.1,
    "height": 256,
    "width": 256,
    "channels": 3,
    "min_crop": 128,
    "max_crop": 448,
    "mosaic": 1,
    "cutmix": 1,
    "burn_in": 1000,
    "learning_rate": 0.1,
    "policy": "poly",
    "power": 4.0,
    "max_batches": 1_200_000,
    "momentum": 0.9,
    "decay": 0.0005,
    "angle": 7.0,
    "hue": 0.1,
    "saturation": 0.75,
    "exposure": 0.75,
    "aspect": 0.75,
}
"""Options of ``[net]`` with which all networks of the thread were trained."""


@dataclass(frozen=True)
class Traced:
    """Network as darknet's layers."""

    cfg: Cfg
    modules: tuple[nn.Module | None, ...]
    """Module that holds the parameters of each layer, or None."""
    names: tuple[str, ...]
    """Name of each module in the network, or ""."""


def save_cfg(model: nn.Module, path: str | Path, *, burnin_update: int | None = None) -> None:
    """Write a network as a .cfg that darknet reads.

    Args:
        model: one of our backbones with any options, also ``features_only``, or a network from a cfg.
        path: the file to write.
        burnin_update: burn-ins for which the fusion weights are held; None takes the number of each shortcut.

    Raises:
        UserError: the network does something for which darknet has no section.
    """
    write_cfg(trace(model, burnin_update=burnin_update).cfg, path)


def trace(model: nn.Module, *, burnin_update: int | None = None) -> Traced:
    """Return the layers of ``model`` as darknet lists them. Arguments and errors as for `save_cfg`."""
    if isinstance(model, DarknetNetwork):
        names = tuple(f"layers.{index}" for index in range(len(model.layers)))
        return Traced(model.cfg, tuple(model.layers), names)
    if isinstance(model, FeatureGetterNet):
        inner = trace(model.get_submodule("model"), burnin_update=burnin_update)
        names = tuple(name and f"model.{name}" for name in inner.names)
        return replace(inner, cfg=replace(inner.cfg, is_cut=True), names=names)
    if not isinstance(model, CspBackbone):
        raise UserError(f"darknet has no such network as {type(model).__name__}: only our own and those from a cfg")
    twin = _copy_without_data(model)
    image = torch.empty(1, model.in_chans, NET["height"], NET["width"], device="meta")  # type: ignore[arg-type]
    record = _run(twin, image, _Record(burnin_update))
    if record.image_is_read_late:
        record = _run(twin, image, _Record(burnin_update, identity=True))
    return _describe(model, twin, image, record)


def _copy_without_data(model: nn.Module) -> nn.Module:
    """Return a copy without data and without hooks."""
    twin = copy.deepcopy(model).to("meta").eval()
    for module in twin.modules():
        module._forward_hooks.clear()
        module._forward_pre_hooks.clear()
    return twin


def _describe(model: nn.Module, twin: nn.Module, image: Tensor, record: "_Record") -> Traced:
    names = {module: name for name, module in twin.named_modules()}
    originals = dict(model.named_modules())
    layers = record.layers
    if layers and isinstance(record.modules[-1], nn.Linear):
        layers = [*layers, Section("softmax", {"groups": 1})]
    found = tuple(names[module] if module is not None else "" for module in record.modules)
    found += ("",) * (len(layers) - len(found))
    net = Section("net", {**NET, "channels": image.shape[1]})
    return Traced(Cfg(net, tuple(layers)), tuple(originals[name] if name else None for name in found), found)


@torch.no_grad()
def _run(twin: nn.Module, image: Tensor, record: "_Record") -> "_Record":
    record.start(image)
    hooks = []
    for module in twin.modules():
        if rule := _find_rule(module):
            hooks.append(module.register_forward_pre_hook(record.enter))
            hooks.append(module.register_forward_hook(_record_outermost(rule, record)))
    try:
        with _Functions(record):
            result = twin(image)
    finally:
        for hook in hooks:
            hook.remove()
    record.number(result)
    return record


def _record_outermost(rule: "_Rule", record: "_Record") -> Callable[..., None]:
    def note(module: Any, inputs: tuple[Tensor, ...], output: Any) -> None:
        record.depth -= 1
        if record.depth == 0:  # a layer inside a known layer is part of it
            rule(record, module, inputs, output)

    return note


class _Record:
    """Layers so far, and the tensor that each of them made."""

    def __init__(self, held: int | None, *, identity: bool = False) -> None:
        self.held = held
        self.identity = identity
        self.layers: list[Section] = []
        self.modules: list[nn.Module | None] = []
        self.image_is_read_late = False
        self.depth = 0
        self._numbers: dict[int, int] = {}
        self._alive: list[Tensor] = []

    def start(self, image: Tensor) -> None:
        self._mark(image, IMAGE)
        if self.identity:
            # darknet cannot route from the image, but from a first layer that changes nothing.
            self.emit("maxpool", {"size": 1, "stride": 1}, image)

    def enter(self, _module: nn.Module, _inputs: Any) -> None:
        self.depth += 1

    def number(self, x: Tensor) -> int:
        """Return the number of the layer that made ``x``."""
        try:
            return self._numbers[id(x)]
        except KeyError:
            raise UserError("the network does something between its layers that no section of a cfg does") from None

    def follow(self, x: Tensor) -> None:
        """Add a route to ``x`` unless it is the output of the newest layer."""
        number = self.number(x)
        if number != len(self.layers) - 1:
            self.route([number])

    def route(self, numbers: Sequence[int], output: Tensor | None = None) -> None:
        self.image_is_read_late |= IMAGE in numbers
        self.emit("route", {"layers": tuple(numbers)}, output)

    def emit(
        self, kind: str, values: Mapping[str, Value], output: Tensor | None = None, module: nn.Module | None = None
    ) -> None:
        self.layers.append(Section(kind, values))
        self.modules.append(module)
        if output is not None:
            self._mark(output, len(self.layers) - 1)

    def alias(self, x: Tensor, output: Tensor) -> None:
        self._mark(output, self.number(x))

    def _mark(self, x: Tensor, number: int) -> None:
        self._alive.append(x)  # no other tensor can get its id
        self._numbers[id(x)] = number


class _Functions(TorchFunctionMode):
    """Recorder of concatenations and sums outside of the known layers."""

    def __init__(self, record: _Record) -> None:
        super().__init__()
        self.record = record

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        if self.record.depth == 0:
            if func in (torch.cat, torch.concat):
                self.record.route([self.record.number(x) for x in args[0]], output)
            elif func in _ADDITIONS:
                _trace_sum(self.record, args[0], args[1], output)
        return output


_ADDITIONS = (torch.add, Tensor.add, Tensor.__add__)


def _trace_sum(record: _Record, a: Tensor, b: Tensor, output: Tensor) -> None:
    first, second = sorted((a, b), key=record.number)
    record.follow(second)
    record.emit("shortcut", {"from": (record.number(first),), "activation": "linear"}, output)


def activation_name(module: nn.Module) -> str:
    """Return darknet's name of an activation.

    Raises:
        UserError: darknet has no such activation.
    """
    if isinstance(module, Elementwise):
        return module.name
    if isinstance(module, nn.LeakyReLU) and module.negative_slope != 0.1:
        raise UserError(f"darknet's leaky has the slope 0.1, not {module.negative_slope}")
    if type(module) not in _ACTIVATIONS:
        raise UserError(f"darknet has no activation {type(module).__name__}")
    return _ACTIVATIONS[type(module)]


_ACTIVATIONS: dict[type[nn.Module], str] = {
    nn.Identity: "linear",
    nn.ReLU: "relu",
    nn.LeakyReLU: "leaky",
    nn.Mish: "mish",
    nn.SiLU: "swish",
}


def _trace_convolution(record: _Record, module: ConvNormAct, inputs: Sequence[Tensor], output: Tensor) -> None:
    if not isinstance(module.bn, nn.BatchNorm2d):
        raise UserError("a fused network cannot be written: save it before fuse()")
    record.follow(inputs[0])
    conv = module.conv
    values: dict[str, Value] = {"batch_normalize": 1, "filters": conv.out_channels, "size": conv.kernel_size[0]}
    if conv.groups > 1:
        values["groups"] = conv.groups
    values |= {"stride": conv.stride[0], "pad": 1}
    if conv.dilation[0] > 1:
        values["dilation"] = conv.dilation[0]
    values["activation"] = activation_name(module.act)
    record.emit("convolutional", values, output, module)


def _trace_classifier(record: _Record, module: nn.Linear, inputs: Sequence[Tensor], output: Tensor) -> None:
    record.follow(inputs[0])
    values = {"filters": module.out_features, "size": 1, "stride": 1, "pad": 1, "activation": "linear"}
    record.emit("convolutional", values, output, module)


def _trace_shortcut(record: _Record, module: WeightedShortcut, inputs: Sequence[Tensor], output: Tensor) -> None:
    record.follow(inputs[0])
    values: dict[str, Value] = {"from": tuple(record.number(x) for x in inputs[1:])}
    if module.weight is not None:
        if module.normalization not in ("relu", "softmax"):
            raise UserError(f"darknet has no weighted shortcut with normalization={module.normalization}")
        values |= {"weights_type": module.weights_type, "weights_normalization": module.normalization}
        if held := module.burnin_update if record.held is None else record.held:
            values["burnin_update"] = held
    record.emit("shortcut", values | {"activation": activation_name(module.act)}, output, module)


def _trace_maxout(record: _Record, module: Maxout, inputs: Sequence[Tensor], output: Tensor) -> None:
    record.route([record.number(x) for x in inputs])
    values = {"maxpool_depth": 1, "out_channels": module.channels[0], "stride": 1, "size": 1}
    record.emit("maxpool", values, output)


def _trace_max_pool(record: _Record, module: nn.MaxPool2d, inputs: Sequence[Tensor], output: Tensor) -> None:
    if (module.kernel_size, module.stride, module.padding, module.ceil_mode) != (2, 2, 0, True):
        raise UserError(f"{module} has other windows than darknet's [maxpool]")
    record.follow(inputs[0])
    record.emit("maxpool", {"size": 2, "stride": 2}, output)


def _trace_dilated_pool(_record: _Record, module: DilatedMaxPool2d, _inputs: Sequence[Tensor], _output: Tensor) -> None:
    raise UserError(f"darknet's [maxpool] has no dilation ({module.dilation}): leave output_stride out")


def _trace_pool(record: _Record, module: DarknetMaxPool2d, inputs: Sequence[Tensor], output: Tensor) -> None:
    record.follow(inputs[0])
    values = {"size": module.size, "stride": module.stride}
    if module.padding != module.size - 1:
        values["padding"] = module.padding
    record.emit("local_avgpool" if isinstance(module, LocalAvgPool2d) else "maxpool", values, output)


def _trace_pyramid(record: _Record, module: InputPyramid, inputs: Sequence[Tensor], output: list[Tensor]) -> None:
    sections: dict[str, tuple[str, dict[str, Value]]] = {
        "avgpool": ("local_avgpool", {"size": 2, "stride": 2}),
        "reorg3d": ("reorg3d", {"stride": 2}),
    }
    kind, values = sections[module.kind]
    larger = inputs[0]
    for level in output:
        record.follow(larger)
        record.emit(kind, values, level)
        larger = level


def _trace_space_to_depth(record: _Record, module: Reorg3d, inputs: Sequence[Tensor], output: Tensor) -> None:
    height, width = inputs[0].shape[2:]
    if height % module.stride or width % module.stride:
        raise UserError(
            f"darknet's [reorg3d] fills no edge: a map of {width}x{height} has no whole blocks of {module.stride}"
        )
    record.follow(inputs[0])
    record.emit("reorg3d", {"stride": module.stride}, output)


def _trace_dilated_reorg(_record: _Record, module: DilatedReorg3d, _inputs: Sequence[Tensor], _output: Tensor) -> None:
    raise UserError(f"darknet's [reorg3d] has no dilation ({module.dilation}): leave output_stride out")


def _trace_half(record: _Record, module: ChannelHalf, inputs: Sequence[Tensor], output: Tensor) -> None:
    values = {"layers": (record.number(inputs[0]),), "groups": 2, "group_id": module.index}
    record.emit("route", values, output)


def _trace_double(record: _Record, module: DoubleSize, inputs: Sequence[Tensor], output: Tensor) -> None:
    if any(size % 2 for size in output.shape[2:]):
        raise UserError(f"darknet's [upsample] cuts no edge: a map of {output.shape[3]}x{output.shape[2]} is odd")
    record.follow(inputs[0])
    kind, values = ("reorg", {"stride": 2, "reverse": 1}) if module.kind == "reorg3d" else ("upsample", {"stride": 2})
    record.emit(kind, values, output)


def _trace_drop_block(record: _Record, module: DropBlock2d, inputs: Sequence[Tensor], output: Tensor) -> None:
    if module.kind != "darknet":
        raise UserError(f"darknet has no DropBlock of kind {module.kind}")
    record.follow(inputs[0])
    values: dict[str, Value] = {"dropblock": 1}
    if module.relative_size is None:
        values["dropblock_size_abs"] = module.block_size
    else:
        values["dropblock_size_rel"] = module.relative_size
    record.emit("dropout", values | {"probability": module.probability}, output)


def _trace_dropout(record: _Record, module: nn.Dropout, inputs: Sequence[Tensor], output: Tensor) -> None:
    if module.p == 0:
        record.alias(inputs[0], output)
    else:
        record.follow(inputs[0])
        record.emit("dropout", {"probability": module.p}, output)


def _trace_global_pool(record: _Record, module: SelectAdaptivePool2d, inputs: Sequence[Tensor], output: Tensor) -> None:
    if not module.pool_type:  # feature maps
        record.alias(inputs[0], output)
        return
    if module.pool_type != "avg":
        raise UserError(f"darknet has no global pooling {module.pool_type!r} before the classifier, only 'avg'")
    record.follow(inputs[0])
    record.emit("avgpool", {}, output)


_Rule = Callable[[_Record, Any, Any, Any], None]
_RULES: tuple[tuple[type[nn.Module], _Rule], ...] = (
    (ConvNormAct, _trace_convolution),
    (WeightedShortcut, _trace_shortcut),
    (Maxout, _trace_maxout),
    (InputPyramid, _trace_pyramid),
    (DarknetMaxPool2d, _trace_pool),
    (Reorg3d, _trace_space_to_depth),
    (DilatedReorg3d, _trace_dilated_reorg),
    (ChannelHalf, _trace_half),
    (DoubleSize, _trace_double),
    (DropBlock2d, _trace_drop_block),
    (SelectAdaptivePool2d, _trace_global_pool),
    (nn.MaxPool2d, _trace_max_pool),
    (DilatedMaxPool2d, _trace_dilated_pool),
    (nn.Dropout, _trace_dropout),
    (nn.Linear, _trace_classifier),
    (nn.Flatten, lambda record, _, inputs, output: record.alias(inputs[0], output)),
    (nn.Identity, lambda record, _, inputs, output: record.alias(inputs[0], output)),
)
"""Class of a layer -> function that records it. Modules of other classes are traced through their children."""


def _find_rule(module: nn.Module) -> _Rule | None:
    return next((rule for kind, rule in _RULES if isinstance(module, kind)), None)
