"""SGD whose weight decay reaches convolution and classifier weights only, as darknet's does."""

from torch import nn
from torch.nn.modules.conv import _ConvNd
from torch.optim import SGD

from backbones.recipe import Optim


def create_optimizer(model: nn.Module, optim: Optim, *, lr: float) -> SGD:
    """Return SGD over all trainable parameters in two groups: with decay and without."""
    decayed, others = split_parameters(model)
    groups = [
        {"params": decayed, "weight_decay": optim.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return SGD([group for group in groups if group["params"]], lr=lr, momentum=optim.momentum)


def split_parameters(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Return (weights of convolutions and linear layers, everything else): biases, norms, fusion weights, slopes."""
    layers = [module for module in model.modules() if isinstance(module, (_ConvNd, nn.Linear))]
    weights = {id(layer.weight) for layer in layers}
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    decayed = [parameter for parameter in trainable if id(parameter) in weights]
    return decayed, [parameter for parameter in trainable if id(parameter) not in weights]
