"""Numbers that darknet recorded, and a way to give a network the parameters they were recorded with."""

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from backbones.darknet.cfg import Section, parse_cfg
from backbones.darknet.network import Connected, Convolution, DarknetNetwork
from backbones.darknet.options import SECTIONS
from backbones.layers import WeightedShortcut

FIXTURES = Path(__file__).parents[1] / "fixtures" / "darknet"
SEED = 7


class Recording:
    """One run of darknet."""

    def __init__(self, name: str) -> None:
        with np.load(FIXTURES / f"{name}.npz") as arrays:
            self.arrays = {key: torch.from_numpy(arrays[key]) for key in arrays if key != "meta"}
            self.meta: dict[str, Any] = json.loads(str(arrays["meta"]))

    def __getitem__(self, key: str) -> torch.Tensor:
        return self.arrays[key]

    def layer(self, index: int, kind: str = "param") -> dict[str, torch.Tensor]:
        prefix = f"{kind}/{index:03d}/"
        return {key.removeprefix(prefix): value for key, value in self.arrays.items() if key.startswith(prefix)}

    def network(self, **options: Any) -> DarknetNetwork:
        """Return the recorded network with its parameters."""
        network = DarknetNetwork(parse_cfg(self.meta["cfg"]), **options).eval()
        for index, module in enumerate(network.layers):
            fill(module, self.layer(index))
        return network

    def images(self) -> torch.Tensor:
        return self.arrays["input"] if "input" in self.arrays else seeded_images(self.meta["batch"], 256)


@torch.no_grad()
def fill(module: nn.Module, values: dict[str, torch.Tensor]) -> None:
    """Set the parameters of one layer by darknet's names."""
    if not values:
        return
    if isinstance(module, WeightedShortcut):
        assert module.weight is not None
        module.weight.copy_(values["weights"])
        return
    if isinstance(module, nn.BatchNorm2d):
        module.weight.copy_(values["scales"])
        module.bias.copy_(values["biases"])
        module.running_mean.copy_(values["rolling_mean"])
        module.running_var.copy_(values["rolling_variance"])
        return
    core = {Convolution: "conv", Connected: "fc"}.get(type(module), "")
    core = getattr(module, core) if core else module
    bn = getattr(module, "bn", None)
    core.weight.copy_(values["weights"].reshape(core.weight.shape))
    (bn or core).bias.copy_(values["biases"])
    if bn is not None:
        bn.weight.copy_(values["scales"])
        bn.running_mean.copy_(values["rolling_mean"])
        bn.running_var.copy_(values["rolling_variance"])


def seeded_images(batch: int, size: int) -> torch.Tensor:
    draw = np.random.RandomState([SEED, 999983]).random_sample((batch, 3, size, size))
    return torch.from_numpy(draw.astype(np.float32))


def seeded_values(network: DarknetNetwork, index: int, gain: float) -> dict[str, torch.Tensor]:
    """Draw the parameters of layer ``index`` of a 256x256 recording."""
    random = np.random.RandomState([SEED, index])
    module = network.layers[index]

    def uniform(low: float, high: float, *shape: int) -> torch.Tensor:
        draw = (low + (high - low) * random.random_sample(math.prod(shape))).astype(np.float32)
        return torch.from_numpy(draw.reshape(shape))

    if isinstance(module, WeightedShortcut):
        return {} if module.weight is None else {"weights": uniform(0.25, 1.75, *module.weight.shape)}
    if not isinstance(module, Convolution | Connected):
        return {}
    assert isinstance(module, Convolution)
    filters = module.conv.out_channels
    values = {"biases": uniform(-0.2, 0.2, filters)}
    if module.bn is not None:
        values["scales"] = uniform(0.5, 1.5, filters)
        values["rolling_mean"] = uniform(-0.2, 0.2, filters)
        values["rolling_variance"] = uniform(0.5, 1.5, filters)
    bound = gain * math.sqrt(3 / module.conv.weight[0].numel())
    return values | {"weights": uniform(-bound, bound, *module.conv.weight.shape)}


def resolve_options(sections: Iterable[Section]) -> list[tuple[str, dict[str, Any]]]:
    """Return kind and options of each section, with defaults and in one order, to compare what cfgs mean."""
    return [(section.kind, {option: section[option] for option in SECTIONS[section.kind]}) for section in sections]


def assert_close_to_scale(actual: torch.Tensor, expected: torch.Tensor, *, tolerance: float = 1e-5) -> None:
    assert actual.numel() == expected.numel()
    error = (actual.flatten() - expected.flatten()).abs().max().item()
    assert error <= tolerance * expected.abs().max().item()
