"""Cost of one step of the optimizer: torch's three forms of SGD on the parameters of one network, in one run.

python -m benchmarks.optimizer [--device cuda] [--json FILE]

The groups are those of a training (with decay, without); every parameter has a gradient. `for-loop` is torch's choice
on a CPU. The table says how far the weights of each form are from those of the for-loop after 20 steps.
"""

import argparse

import torch
from torch import Tensor, nn
from torch.optim import SGD

from backbones import create_model
from backbones.recipe import Optim
from backbones.training.optim import split_parameters
from benchmarks.harness import Result, clock_for, compare, create_parser, measure, publish

FORMS = {
    "for-loop": {"foreach": False, "fused": False},
    "foreach": {"foreach": True, "fused": False},
    "fused": {"fused": True},
}
STEPS_COMPARED = 20


def create_network(options: argparse.Namespace) -> nn.Module:
    torch.manual_seed(0)
    return create_model(options.model).to(options.device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def set_gradients(network: nn.Module) -> None:
    """Give every parameter a random gradient, the same in each call, in its own memory order."""
    torch.manual_seed(1)
    for parameter in network.parameters():
        parameter.grad = torch.randn_like(parameter) * 0.01


def create_optimizer(network: nn.Module, form: str) -> SGD:
    decayed, others = split_parameters(network)
    optim = Optim()
    groups = [{"params": decayed, "weight_decay": optim.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return SGD(groups, lr=0.1, momentum=optim.momentum, **FORMS[form])


def prepare(form: str, options: argparse.Namespace) -> SGD:
    """Return the optimizer of a network whose parameters have gradients."""
    network = create_network(options)
    set_gradients(network)
    return create_optimizer(network, form)


def train(form: str, options: argparse.Namespace) -> list[Tensor]:
    """Return the weights after some steps with the same gradients."""
    network = create_network(options)
    set_gradients(network)
    optimizer = create_optimizer(network, form)
    for _ in range(STEPS_COMPARED):
        optimizer.step()
    return [parameter.detach() for parameter in network.parameters()]


def measure_differences(options: argparse.Namespace) -> dict[str, float]:
    """Return the largest relative difference of each form's weights from the for-loop's; 0 is the same to the bit."""
    reference = train("for-loop", options)
    norm = torch.stack([weight.abs().max() for weight in reference]).max()
    return {
        form: max(float((a - b).abs().max() / norm) for a, b in zip(train(form, options), reference, strict=True))
        for form in FORMS
    }


def main() -> None:
    parser = create_parser(__doc__ or "")
    parser.add_argument("--model", default="csresnext50_ws_mi2")
    parser.add_argument("--turn", type=int, default=10, help="steps of each turn")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(1)
    steps = {form: prepare(form, options).step for form in FORMS}
    clock = clock_for(options.device)
    costs = measure(steps, rounds=options.rounds, repeats=options.turn, scale=1000, clock=clock)
    ratios = compare(costs, {f"{form} / for-loop": (form, "for-loop") for form in FORMS if form != "for-loop"})
    rows = [{"form": form, "difference": f"{value:.1e}"} for form, value in measure_differences(options).items()]
    tables = {f"Relative difference of the weights from the for-loop's after {STEPS_COMPARED} steps": rows}
    publish(Result("Optimizer", "ms per step", costs, ratios, tables, setting=vars(options)), options.json)


if __name__ == "__main__":
    main()
