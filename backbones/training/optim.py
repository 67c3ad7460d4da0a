"""SGD whose weight decay reaches convolution and classifier weights only, as darknet's does."""

from typing import Any

from torch import nn
from torch.nn.modules.conv import _ConvNd
from torch.optim import SGD, Optimizer

from backbones.recipe import Optim
from backbones.training.fusion_update import FusionSGD, fusion_groups

_STATE = ("params", "updates")
"""What a parameter group holds that is not an option: the parameters' numbers and how many updates were made."""


def create_optimizer(model: nn.Module, optim: Optim, *, lr: float, batch_size: int = 1, burn_in: int = 0) -> SGD:
    """Return SGD over all trainable parameters: with decay, without, and perhaps fusion weights by darknet's rule.

    Args:
        model: the network.
        optim: the recipe's options.
        lr: learning rate until a schedule sets another.
        batch_size: images of a step. This and ``burn_in`` are read by darknet's rule for fusion weights alone.
        burn_in: steps of burn-in.
    """
    fusion = []
    if optim.fusion_update == "darknet":
        hold = optim.burnin_update
        fusion = fusion_groups(model, batch_size=batch_size, burn_in=burn_in, burnin_update=hold)
    known = {id(parameter) for group in fusion for parameter in group["params"]}
    decayed, others = split_parameters(model)
    groups = [
        {"params": decayed, "weight_decay": optim.weight_decay},
        {"params": [parameter for parameter in others if id(parameter) not in known], "weight_decay": 0.0},
        *fusion,
    ]
    kind = FusionSGD if fusion else SGD
    return kind([group for group in groups if group["params"]], lr=lr, momentum=optim.momentum)


def load_optimizer(optimizer: Optimizer, state: dict[str, Any]) -> None:
    """Take momenta and counters from a checkpoint, but the options (decay, momentum, clip ...) from the optimizer.

    Torch would put the checkpoint's options in their place, and a changed recipe would change nothing.
    """
    options = [{key: value for key, value in group.items() if key not in _STATE} for group in optimizer.param_groups]
    optimizer.load_state_dict(state)
    for group, chosen in zip(optimizer.param_groups, options, strict=True):
        group.update(chosen)


def split_parameters(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Return (weights of convolutions and linear layers, everything else): biases, norms, fusion weights, slopes."""
    layers = [module for module in model.modules() if isinstance(module, (_ConvNd, nn.Linear))]
    weights = {id(layer.weight) for layer in layers}
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    decayed = [parameter for parameter in trainable if id(parameter) in weights]
    return decayed, [parameter for parameter in trainable if id(parameter) not in weights]
