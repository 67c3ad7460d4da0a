"""Cost of one step of the optimizer: torch's three forms of SGD on the parameters of one network, in one run.

python benchmarks/optimizer.py [--device cuda] [--json FILE]

The groups are those of a training (with decay, without); every parameter has a gradient. `for-loop` is torch's choice
on a CPU. The forms take turns (A B C ... C B A) in each round; a turn is many steps. The result is CPU time of this
process with one thread; on a GPU, elapsed time until the GPU has finished. The first round is a warm-up and is dropped.
The last lines say how far the weights of each form are from those of the for-loop after 20 steps.
"""

import argparse
import json
import platform
import statistics
import time
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim import SGD

from backbones import create_model
from backbones.recipe import Optim
from backbones.training.optim import split_parameters

FORMS = {
    "for-loop": {"foreach": False, "fused": False},
    "foreach": {"foreach": True, "fused": False},
    "fused": {"fused": True},
}
STEPS_COMPARED = 20
PACKAGES = ("torch", "timm")


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


def seconds(device: str) -> float:
    """Return the CPU time of this process; for a GPU, the time when it has finished all work."""
    if device == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def turn(optimizer: SGD, options: argparse.Namespace) -> float:
    """Return the milliseconds per step."""
    before = seconds(options.device)
    for _ in range(options.turn):
        optimizer.step()
    return 1000 * (seconds(options.device) - before) / options.turn


def measure(options: argparse.Namespace) -> dict[str, list[float]]:
    """Return the milliseconds of each form, the mean of two turns, in each round except the first."""
    optimizers = {}
    for form in FORMS:
        network = create_network(options)
        set_gradients(network)
        optimizers[form] = create_optimizer(network, form)
    rows: dict[str, list[float]] = {form: [] for form in FORMS}
    for _ in range(options.rounds + 1):
        turns = [(form, turn(optimizers[form], options)) for form in [*FORMS, *reversed(FORMS)]]
        for form, values in rows.items():
            values.append(statistics.mean(spent for other, spent in turns if other == form))
    return {form: values[1:] for form, values in rows.items()}


def train(form: str, options: argparse.Namespace) -> list[Tensor]:
    """Return the weights after some steps with the same gradients."""
    network = create_network(options)
    set_gradients(network)
    optimizer = create_optimizer(network, form)
    for _ in range(STEPS_COMPARED):
        optimizer.step()
    return [parameter.detach() for parameter in network.parameters()]


def compare(options: argparse.Namespace) -> dict[str, float]:
    """Return the largest relative difference of each form's weights from the for-loop's; 0 is the same to the bit."""
    reference = train("for-loop", options)
    norm = torch.stack([weight.abs().max() for weight in reference]).max()
    return {
        form: max(float((a - b).abs().max() / norm) for a, b in zip(train(form, options), reference, strict=True))
        for form in FORMS
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="csresnext50_ws_mi2")
    parser.add_argument("--turn", type=int, default=10, help="steps of each turn")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = {
        form: {"median": statistics.median(values), "min": min(values), "max": max(values)}
        for form, values in measure(options).items()
    }
    print(f"{'ms per step of ' + options.model:40s}  median     min     max")
    for form, row in rows.items():
        print(f"{form:40s}  {row['median']:6.2f}  {row['min']:6.2f}  {row['max']:6.2f}")
    differences = compare(options)
    for form, difference in differences.items():
        print(f"{form:40s}  {difference:.1e} from the for-loop after {STEPS_COMPARED} steps")
    if options.json:
        setting = {name: value for name, value in vars(options).items() if name != "json"}
        machine = {"platform": platform.platform(), "packages": {name: version(name) for name in PACKAGES}}
        result = {"rows": rows, "differences": differences, "setting": setting, **machine}
        options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
