"""What a forward pass costs, counted as darknet counts it."""

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from backbones.layers import DarknetMaxPool2d, InputPyramid, Maxout, WeightedShortcut


def bflops(model: nn.Module, size: int = 256, *, in_chans: int = 3) -> float:
    """Return darknet's BFLOPs of ``model`` for one image, in 10^9 operations.

    Two operations for each multiplication of a convolution, one for each cell that a pool compares or a shortcut adds,
    two where the shortcut is weighted; batch normalization and activations are free. An input pyramid costs darknet
    a copy of the image. The model itself is neither run nor changed.

    Args:
        model: a network for images; convolutions, linear layers, pools and our own layers are counted.
        size: height and width of the image.
        in_chans: its channels.
    """
    shadow = copy.deepcopy(model).to("meta").eval()
    costs: list[float] = []

    def count(module: nn.Module, inputs: Sequence[Tensor], output: Tensor) -> None:
        costs.append(_cost(module)(module, inputs, output))

    for module in shadow.modules():
        if isinstance(module, tuple(_COSTS)):
            module.register_forward_hook(count)
    with torch.no_grad():
        shadow(torch.empty(1, in_chans, size, size, device="meta"))
    return sum(costs) / 1e9


_Cost = Callable[..., float]


def _cost(module: nn.Module) -> _Cost:
    return next(cost for kind, cost in _COSTS.items() if isinstance(module, kind))


def _convolution(module: nn.Conv2d, _inputs: Sequence[Tensor], output: Tensor) -> float:
    return 2 * module.weight[0].numel() * output.numel()


def _linear(module: nn.Linear, _inputs: Sequence[Tensor], output: Tensor) -> float:
    return 2 * module.in_features * output.numel()


def _max_pool(module: nn.MaxPool2d, _inputs: Sequence[Tensor], output: Tensor) -> float:
    assert isinstance(module.kernel_size, int)
    return module.kernel_size**2 * output.numel()


def _darknet_pool(module: DarknetMaxPool2d, _inputs: Sequence[Tensor], output: Tensor) -> float:
    return module.size**2 * output.numel()


def _shortcut(module: WeightedShortcut, inputs: Sequence[Tensor], output: Tensor) -> float:
    return (len(inputs) - 1) * output.numel() * (1 if module.weight is None else 2)


def _maxout(_module: Maxout, inputs: Sequence[Tensor], _output: Tensor) -> float:
    return sum(x.numel() for x in inputs)


def _pyramid(module: InputPyramid, inputs: Sequence[Tensor], output: Sequence[Tensor]) -> float:
    cells = sum(level.numel() for level in output) if module.kind == "avgpool" else 0
    return inputs[0].numel() + 4 * cells


_COSTS: dict[type[nn.Module], _Cost] = {
    nn.Conv2d: _convolution,
    nn.Linear: _linear,
    nn.MaxPool2d: _max_pool,
    DarknetMaxPool2d: _darknet_pool,
    WeightedShortcut: _shortcut,
    Maxout: _maxout,
    InputPyramid: _pyramid,
}
