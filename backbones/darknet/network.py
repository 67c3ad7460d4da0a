"""Trainable network from the cfg of any classifier: one small module for each section, called in order."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import torch
import torch.fx
import torch.nn.functional as F
from torch import Tensor, nn

from backbones.darknet.activation import darknet_activation
from backbones.darknet.cfg import IMAGE, Cfg, Section, format_cfg, read_cfg
from backbones.darknet.shapes import (
    DEFAULT_BLOCK_SIZE,
    Layer,
    blur_geometry,
    class_count,
    classifier_layer,
    infer_layers,
    logits_layer,
    padding,
    pool_geometry,
    require_classes,
    strides,
)
from backbones.errors import UserError, require_choice
from backbones.layers.conv import darknet_uniform_
from backbones.layers.crop import Crop
from backbones.layers.drop_block import DropBlock2d
from backbones.layers.fold import fold_unit
from backbones.layers.maxout import maxout
from backbones.layers.pooling import DarknetMaxPool2d, LocalAvgPool2d
from backbones.layers.reorg import inverse_reorg3d, reorg, reorg3d, reversed_reorg3d
from backbones.layers.shortcut import MIN_WEIGHT, FusionGradient, WeightedShortcut
from backbones.layers.strided_shortcut import StridedShortcut


def load_cfg(
    path: str | Path,
    *,
    layers: int | None = None,
    num_classes: int | None = None,
    relu_floor: float = MIN_WEIGHT,
    fusion_gradient: FusionGradient = "true",
) -> "DarknetNetwork":
    """Build the network that a .cfg describes, with darknet's initial weights.

    Of a detector, these are the layers before its first head, and the result is the last feature map.

    Args:
        path: the file.
        layers: number of first layers to build, as a backbone; None builds all.
        num_classes: required number of outputs; None accepts any.
        relu_floor: see `WeightedShortcut`; 0 is what darknet's CPU code computes.
        fusion_gradient: see `WeightedShortcut`; ``darknet`` trains fusion weights as darknet's GPU code does.

    Raises:
        UserError: the cfg is wrong, or has another number of outputs; one line names file, line and option.
    """
    cfg = read_cfg(path, layers=layers)
    if num_classes is not None:
        require_classifier(cfg)
    network = DarknetNetwork(cfg, relu_floor=relu_floor, fusion_gradient=fusion_gradient)
    if num_classes is not None:
        require_classes(network.inferred_layers, num_classes)
    return network


def require_classifier(cfg: Cfg) -> None:
    """Raise `UserError` for a cfg whose layers are a backbone without a classifier."""
    if cfg.head is not None:
        raise UserError(
            f"{cfg.head.file}:{cfg.head.line}: [{cfg.head.kind}] makes this a detector, not a classifier of images: "
            f"load_cfg(path) takes the {len(cfg.layers)} layers before it as a backbone, and layers=N fewer"
        )
    if cfg.is_cut:
        raise UserError(f"{cfg.net.file}: layers={len(cfg.layers)} is a backbone, which has no classes")


class DarknetNetwork(nn.Module):
    """Network as a list of layers, each of which reads earlier ones.

    ``layers[i]`` is darknet's layer i, so the parameters have the order of a ``.weights`` file. The forward pass
    ends before ``[softmax]`` and ``[cost]``, with logits for a cross-entropy; `outputs` runs them as well.

    Args:
        cfg: description of the network.
        relu_floor: see `WeightedShortcut`.
        fusion_gradient: see `WeightedShortcut`.

    Shape:
        (N, channels, H, W) -> (N, num_classes), or the last feature map of a network without a classifier. H and W
        are free unless a ``[connected]`` fixes them. ``num_classes`` is 0 for a backbone: a detector up to its first
        head, or a cfg of which only the first layers were read.
    """

    def __init__(self, cfg: Cfg, *, relu_floor: float = MIN_WEIGHT, fusion_gradient: FusionGradient = "true") -> None:
        super().__init__()
        require_choice("fusion_gradient", fusion_gradient, get_args(FusionGradient))
        self.cfg = cfg
        self.inferred_layers = infer_layers(cfg)
        self.num_classes = 0 if cfg.is_backbone else class_count(self.inferred_layers)
        self.layers = nn.ModuleList(_BUILDERS[layer.kind](layer) for layer in self.inferred_layers)
        self._last = logits_layer(self.inferred_layers)
        self._last_use = {index: layer.index for layer in self.inferred_layers for index in layer.inputs}
        for module in self.layers:
            if isinstance(module, WeightedShortcut):
                module.floor = relu_floor
                module.fusion_gradient = fusion_gradient

    @property
    def cfg_text(self) -> str:
        """Return the text of a .cfg that describes this network."""
        return format_cfg(self.cfg)

    @property
    def pretrained_cfg(self) -> dict[str, Any]:
        """Describe the input for timm: RGB in [0, 1] at the size of the cfg."""
        net = self.cfg.net
        size = (net["channels"], net["height"], net["width"])
        return {"input_size": size, "interpolation": "bilinear", "crop_pct": 1.0, "mean": (0.0,) * 3, "std": (1.0,) * 3}

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        kept = {IMAGE: x}
        for layer, module in zip(self.inferred_layers[: self._last + 1], self.layers, strict=False):
            kept[layer.index] = module(*(kept[index] for index in layer.inputs))
            for index in {layer.index - 1, *layer.inputs}:
                if self._last_use.get(index, IMAGE) <= layer.index:
                    kept.pop(index, None)
            x = kept[layer.index]
        return flatten_single_cells(x)

    def outputs(self, x: Tensor) -> list[Tensor]:
        """Return the output of every layer, also of ``[softmax]`` and ``[cost]``."""
        found = {IMAGE: x}
        for layer, module in zip(self.inferred_layers, self.layers, strict=True):
            found[layer.index] = module(*(found[index] for index in layer.inputs))
        return [found[layer.index] for layer in self.inferred_layers]

    def get_classifier(self) -> nn.Module:
        """Return the layer that computes the logits."""
        return self.layers[classifier_layer(self.inferred_layers).index]

    def set_grad_checkpointing(self, enable: bool = True) -> None:  # noqa: FBT001  (timm's signature)
        """Raise `UserError` if enabled: a cfg has no stages that could be computed again."""
        if enable:
            raise UserError("grad_checkpointing: a network from a cfg cannot do that; leave the option out.")

    def no_weight_decay(self) -> set[str]:
        """Return the names of the fusion weights, which must not decay."""
        shortcuts = [(name, module) for name, module in self.named_modules() if isinstance(module, WeightedShortcut)]
        return {f"{name}.weight" for name, module in shortcuts if module.weight is not None}


class Convolution(nn.Module):
    """``[convolutional]`` with all its options.

    Shape:
        (N, C, H, W) -> (N, filters, H', W')
    """

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        section, filters = layer.section, layer.section["filters"]
        smooth, norm = section["antialiasing"], section["batch_normalize"]
        self.conv = nn.Conv2d(
            layer.input.channels,
            filters,
            section["size"],
            1 if smooth else strides(section),
            padding=padding(section) * section["dilation"],
            dilation=section["dilation"],
            groups=section["groups"],
            bias=not norm,
        )
        self.bn = nn.BatchNorm2d(filters, eps=1e-5, momentum=0.01) if norm else None
        self.act = darknet_activation(section["activation"])
        self.blur = Blur(section, strides(section)) if smooth else None
        _initialize(self.conv)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve, normalize, activate, blur."""
        x = self.conv(x)
        x = self.act(x if self.bn is None else self.bn(x))
        return x if self.blur is None else self.blur(x)

    def reparameterize(self) -> None:
        """Fold the batch normalization into the convolution, for ``timm.utils.reparameterize_model``."""
        fold_unit(self)


class Connected(nn.Module):
    """``[connected]``: a fully connected layer.

    Shape:
        (N, C, H, W) -> (N, output, 1, 1)
    """

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        outputs, norm = layer.section["output"], layer.section["batch_normalize"]
        self.fc = nn.Linear(layer.input.cells, outputs, bias=not norm)
        self.bn = nn.BatchNorm1d(outputs, eps=1e-5, momentum=0.01) if norm else None
        self.act = darknet_activation(layer.section["activation"])
        _initialize(self.fc)

    def forward(self, x: Tensor) -> Tensor:
        """Multiply, normalize, activate."""
        x = self.fc(x.flatten(1))
        return self.act(x if self.bn is None else self.bn(x))[:, :, None, None]

    def reparameterize(self) -> None:
        """Fold the batch normalization into the matrix, for ``timm.utils.reparameterize_model``."""
        fold_unit(self)


class Blur(nn.Module):
    """The strided blur of ``antialiasing``: (1 2 1)² / 16, or the mean of 2x2 cells with ``antialiasing=2``.

    Shape:
        (N, C, H, W) -> (N, C, H', W')
    """

    def __init__(self, section: Section, steps: tuple[int, int]) -> None:
        super().__init__()
        size, self.padding = blur_geometry(section)
        line = torch.tensor([1.0, 1.0] if size == 2 else [1.0, 2.0, 1.0])
        kernel = torch.outer(line, line) / line.sum() ** 2
        self.register_buffer("kernel", kernel, persistent=False)
        self.steps = steps

    def forward(self, x: Tensor) -> Tensor:
        """Blur each channel."""
        return blur(x, self.get_buffer("kernel"), self.steps, self.padding)


@torch.fx.wrap
def blur(x: Tensor, kernel: Tensor, steps: tuple[int, int], padding: int) -> Tensor:
    """Convolve each channel with one kernel. It is one node of a graph that `torch.fx` traces.

    Shape:
        x (N, C, H, W), kernel (K, K) -> (N, C, H', W')
    """
    channels = x.shape[1]
    kernels = kernel.to(x.dtype).expand(channels, 1, -1, -1)
    return F.conv2d(x, kernels, stride=steps, padding=padding, groups=channels)


class Route(nn.Module):
    """``[route]``: the concatenation of its sources, or of one group of channels from each.

    Shape:
        (N, C_j, H, W) for each j -> (N, sum of C_j / groups, H, W)
    """

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.groups, self.group = layer.section["groups"], layer.section["group_id"]

    def forward(self, *inputs: Tensor) -> Tensor:
        """Concatenate the inputs."""
        if self.groups > 1:
            inputs = tuple(x.chunk(self.groups, 1)[self.group] for x in inputs)
        return inputs[0] if len(inputs) == 1 else torch.cat(inputs, 1)


class ScaleChannels(nn.Module):
    """``[scale_channels]``: the source times the layer before, which has one number for each channel or cell.

    ``[sam]`` is the same for two maps of one shape.

    Shape:
        (N, C, 1, 1) or (N, 1, H, W), (N, C, H, W) -> (N, C, H, W)
    """

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.act = darknet_activation(layer.section["activation"])

    def forward(self, scales: Tensor, x: Tensor) -> Tensor:
        """Multiply and activate."""
        return self.act(x * scales)


class Upsample(nn.Module):
    """``[upsample]``: each cell repeated, or with a negative stride the sum of each block; times ``scale``.

    Shape:
        (N, C, H, W) -> (N, C, H * stride, W * stride), or (N, C, H / -stride, W / -stride)
    """

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.stride, self.scale = layer.section["stride"], layer.section["scale"]

    def forward(self, x: Tensor) -> Tensor:
        """Enlarge, or shrink with a negative stride."""
        if self.stride > 0:
            return self.scale * F.interpolate(x, scale_factor=self.stride, mode="nearest")
        return self.scale * F.avg_pool2d(x, -self.stride, divisor_override=1)


class Softmax(nn.Module):
    """``[softmax]``: probabilities within each of ``groups`` runs of numbers.

    Shape:
        (N, ...) -> (N, K, 1, 1), so that a later layer can read it as a map
    """

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.groups, self.temperature = layer.section["groups"], layer.section["temperature"]

    def forward(self, x: Tensor) -> Tensor:
        """Normalize each group."""
        grouped = x.flatten(1).unflatten(1, (self.groups, -1)) / self.temperature
        return grouped.softmax(2).flatten(1)[:, :, None, None]


class Calculation(nn.Module):
    """Function of `_CALCULATIONS` as a module without state.

    Shape:
        as for the function
    """

    def __init__(self, name: str, *arguments: int) -> None:
        super().__init__()
        self.name = name
        self.arguments = arguments

    def forward(self, x: Tensor) -> Tensor:
        """Apply the function."""
        return calculate(self.name, x, *self.arguments)

    def extra_repr(self) -> str:
        """Show the function in ``print(model)``."""
        return f"{self.name}{self.arguments}"


@torch.fx.wrap
def calculate(name: str, x: Tensor, *arguments: int) -> Tensor:
    """Apply a function of `_CALCULATIONS`. It is one node of a graph that `torch.fx` traces.

    Shape:
        as for the function
    """
    return _CALCULATIONS[name](x, *arguments)


def flatten_padded(x: Tensor, extra: int) -> Tensor:
    """Return all numbers of each image in one row, and ``extra`` zeros behind them: ``[reorg]`` with ``extra``.

    Shape:
        (N, C, H, W) -> (N, C * H * W + extra, 1, 1)
    """
    return F.pad(x.flatten(1), (0, extra))[:, :, None, None]


def global_average(x: Tensor) -> Tensor:
    """Average over height and width.

    Shape:
        (N, C, H, W) -> (N, C, 1, 1)
    """
    return x.mean((2, 3), keepdim=True)


@torch.fx.wrap
def flatten_single_cells(x: Tensor) -> Tensor:
    """Remove height and width if both are 1. It is one node of a graph that `torch.fx` traces.

    Shape:
        (N, C, 1, 1) -> (N, C); any other shape stays
    """
    is_flat = x.dim() == 4 and x.shape[2:] == (1, 1)
    return x.flatten(1) if is_flat else x


_CALCULATIONS: dict[str, Callable[..., Tensor]] = {
    function.__name__: function
    for function in (maxout, reorg, reorg3d, inverse_reorg3d, reversed_reorg3d, global_average, flatten_padded)
}


def _build_maxpool(layer: Layer) -> nn.Module:
    section = layer.section
    if section["maxpool_depth"]:
        return Calculation("maxout", section["out_channels"])
    size, stride, pad = pool_geometry(section)
    if section["antialiasing"]:
        return nn.Sequential(DarknetMaxPool2d(size, 1, pad), Blur(section, (stride, stride)))
    return DarknetMaxPool2d(size, stride, pad)


def _build_shortcut(layer: Layer) -> nn.Module:
    section = layer.section
    weights = section["weights_type"]
    if layer.is_strided:
        strided = StridedShortcut(alpha=section["alpha"], beta=section["beta"])
        strided.act = darknet_activation(section["activation"])
        return strided
    module = WeightedShortcut(
        layer.input_channels,
        weights_type=weights,
        normalization="none" if weights == "none" else section["weights_normalization"],
        burnin_update=section["burnin_update"],
    )
    module.act = darknet_activation(section["activation"])
    return module


def _build_dropout(layer: Layer) -> nn.Module:
    section = layer.section
    if not section["dropblock"]:
        return nn.Dropout(section["probability"])
    absolute, relative = section["dropblock_size_abs"], section["dropblock_size_rel"]
    if relative and not absolute:
        return DropBlock2d(section["probability"], relative_size=relative)
    return DropBlock2d(section["probability"], absolute or DEFAULT_BLOCK_SIZE)


def _build_reorg(layer: Layer) -> nn.Module:
    if layer.kind == "reorg" and layer.section["extra"]:
        return Calculation("flatten_padded", layer.section["extra"])
    forward, backward = {"reorg": ("reorg", "inverse_reorg3d"), "reorg3d": ("reorg3d", "reversed_reorg3d")}[layer.kind]
    return Calculation(backward if layer.section["reverse"] else forward, layer.section["stride"])


def _build_activation(layer: Layer) -> nn.Module:
    """Build an activation that leaves its input alone, because other layers may read that, too."""
    act = darknet_activation(layer.section["activation"])
    if hasattr(act, "inplace"):
        act.inplace = False  # type: ignore[assignment]
    return act


def _build_crop(layer: Layer) -> nn.Module:
    section = layer.section
    size = (section["crop_height"], section["crop_width"])
    return Crop(*size, flip=bool(section["flip"]), adjust=not section["noadjust"])


def _initialize(module: nn.Conv2d | nn.Linear) -> None:
    darknet_uniform_(module.weight)
    if module.bias is not None:
        nn.init.zeros_(module.bias)


_BUILDERS: dict[str, Callable[[Layer], nn.Module]] = {
    "convolutional": Convolution,
    "maxpool": _build_maxpool,
    "local_avgpool": lambda layer: LocalAvgPool2d(*pool_geometry(layer.section)),
    "crop": _build_crop,
    "avgpool": lambda _layer: Calculation("global_average"),
    "route": Route,
    "shortcut": _build_shortcut,
    "reorg": _build_reorg,
    "reorg3d": _build_reorg,
    "dropout": _build_dropout,
    "scale_channels": ScaleChannels,
    "sam": ScaleChannels,
    "upsample": Upsample,
    "connected": Connected,
    "batchnorm": lambda layer: nn.BatchNorm2d(layer.input.channels, eps=1e-5, momentum=0.01),
    "activation": _build_activation,
    "empty": lambda _layer: nn.Identity(),
    "softmax": Softmax,
    "cost": lambda _layer: nn.Identity(),
}
