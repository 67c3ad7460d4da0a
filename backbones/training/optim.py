"""SGD whose weight decay reaches convolution and classifier weights only, as darknet's does."""

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.optim import SGD, Optimizer

from backbones.errors import UserError
from backbones.recipe import Optim
from backbones.training.fusion_update import FusionSGD, FusionWeight, fusion_groups

_STATE = ("params", "updates")
"""Keys of a parameter group that are state, not options: parameter ids and the update count."""


def create_optimizer(
    model: nn.Module,
    optim: Optim,
    *,
    lr: float,
    fusion_weights: Iterable[FusionWeight] = (),
    batch_size: int = 1,
    burn_in: int = 0,
) -> SGD:
    """Return SGD over all trainable parameters: with decay, without, and perhaps fusion weights by darknet's rule.

    Args:
        model: the network.
        optim: the recipe's options.
        lr: learning rate until a schedule sets another.
        fusion_weights: parameters of the network for darknet's rule, which alone reads this and what follows.
        batch_size: images of a step.
        burn_in: steps of burn-in.
    """
    fusion = []
    if optim.fusion_update == "darknet":
        hold = optim.burnin_update
        fusion = fusion_groups(fusion_weights, batch_size=batch_size, burn_in=burn_in, burnin_update=hold)
    known = {id(parameter) for group in fusion for parameter in group["params"]}
    decayed, others = split_parameters(model)
    groups = [
        {"params": decayed, "weight_decay": optim.weight_decay},
        {"params": [parameter for parameter in others if id(parameter) not in known], "weight_decay": 0.0},
        *fusion,
    ]
    kind = FusionSGD if fusion else SGD
    is_on_gpu = all(parameter.is_cuda for parameter in model.parameters())
    # On a GPU the fused form, which can be told on the device to skip an update. On a CPU torch's loop: foreach is
    # slower there, and fused, though faster, rounds otherwise than the runs made so far (benchmarks/optimizer.py).
    return kind([g for g in groups if g["params"]], lr=lr, momentum=optim.momentum, fused=is_on_gpu or None)


def save_optimizer(optimizer: Optimizer) -> dict[str, Any]:
    """Return the state of an optimizer and its kind, so that no other kind takes it."""
    return {"kind": type(optimizer).__name__, **optimizer.state_dict()}


def load_optimizer(optimizer: Optimizer, state: dict[str, Any]) -> None:
    """Take momenta and counters from a checkpoint, but the options (decay, momentum, clip ...) from the optimizer.

    Torch would put the checkpoint's options in their place, and a changed recipe would change nothing.

    Raises:
        UserError: the state is of another kind of optimizer or of other groups of parameters. Torch loads momenta of
            SGD into another optimizer without a word.
    """
    kind, own = state.get("kind", _kind_of(state)), type(optimizer).__name__
    sizes = [[len(group["params"]) for group in groups] for groups in (state["param_groups"], optimizer.param_groups)]
    if kind != own or sizes[0] != sizes[1]:
        raise UserError(
            f"--resume: the checkpoint has the state of {kind} for groups of {sizes[0]} parameters, the recipe asks "
            f"for {own} with groups of {sizes[1]}. A run cannot change that half-way."
        )
    _require_shapes(optimizer, state)
    options = [{key: value for key, value in group.items() if key not in _STATE} for group in optimizer.param_groups]
    optimizer.load_state_dict({key: state[key] for key in ("state", "param_groups")})
    for group, chosen in zip(optimizer.param_groups, options, strict=True):
        group.update(chosen)


def _require_shapes(optimizer: Optimizer, state: dict[str, Any]) -> None:
    """Raise UserError where a momentum has another shape than its parameter."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for number, values in state["state"].items():
        for name, value in values.items():
            if isinstance(value, Tensor) and value.ndim > 0 and value.shape != parameters[number].shape:
                raise UserError(
                    f"--resume: {name} of parameter {number} has the shape {tuple(value.shape)}, and the parameter "
                    f"{tuple(parameters[number].shape)}."
                )


def _kind_of(state: dict[str, Any]) -> str:
    """Return the kind of a state that version 0.1 wrote: it had SGD, with or without darknet's fusion rule."""
    return FusionSGD.__name__ if any("clip" in group for group in state["param_groups"]) else SGD.__name__


def split_parameters(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Return (weights of convolutions and linear layers, everything else): biases, norms, fusion weights, slopes."""
    layers = [module for module in model.modules() if isinstance(module, (_ConvNd, nn.Linear))]
    weights = {id(layer.weight) for layer in layers}
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    decayed = [parameter for parameter in trainable if id(parameter) in weights]
    return decayed, [parameter for parameter in trainable if id(parameter) not in weights]
