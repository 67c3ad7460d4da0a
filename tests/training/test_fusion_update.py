"""Darknet's training rules against recorded steps: gradients, and every parameter after each update."""

import json
from configparser import ConfigParser
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from backbones.layers import ConvNormAct, Maxout, WeightedShortcut, local_avg_pool2d, maxout, reorg3d
from backbones.layers.pooling import darknet_max_pool2d
from backbones.recipe import Optim
from backbones.training.fusion_update import FusionSGD, fusion_group, fusion_parameters
from backbones.training.optim import create_optimizer, split_parameters

FIXTURES = Path(__file__).parents[1] / "fixtures" / "darknet"
WEIGHTED = [f"ws_{kind}_{norm}" for kind in ("per_feature", "per_channel") for norm in ("relu", "softmax")]
RUNS = ["ws_none_none", *WEIGHTED, "csp", "pools", "burnin"]
MOMENTUM, DECAY = 0.9, 5e-4


def read_sections(text):
    """Return [(section, options)] of a cfg."""
    numbered = [
        f"{line[:-1]}@{number}]" if line.startswith("[") else line for number, line in enumerate(text.split("\n"))
    ]
    parser = ConfigParser()
    parser.read_string("\n".join(numbered))
    return [(name.partition("@")[0], dict(parser[name])) for name in parser.sections()]


class RecordedNetwork(nn.Module):
    """The network of a gputrain fixture, put together from our layers; ``layers[i]`` is darknet's layer i."""

    def __init__(self, run, fusion_gradient):
        super().__init__()
        (_, self.net), *self.sections = read_sections(json.loads(str(run["meta"]))["cfg"])
        self.fusion_gradient = fusion_gradient
        self.shapes = [run[f"out/{index:03d}"].shape for index in range(len(self.sections))]
        self.in_channels = run["input"].shape[1]
        self.layers = nn.ModuleList(self._build(index, *section) for index, section in enumerate(self.sections))
        self._fill(run)

    def sources(self, index, key):
        given = [int(word) for word in self.sections[index][1][key].split(",")]
        return [number + index if number < 0 else number for number in given]

    def _build(self, index, kind, options):
        if kind == "convolutional":
            return self._conv(self._width(index - 1), options)
        if kind == "shortcut":
            widths = [self._width(index - 1), *(self._width(k) for k in self.sources(index, "from"))]
            return WeightedShortcut(
                widths,
                weights_type=options.get("weights_type", "none"),
                normalization=options.get("weights_normalization", "none"),
                act=options["activation"],
                fusion_gradient=self.fusion_gradient,
            )
        return nn.Identity()

    def _width(self, index):
        return self.in_channels if index < 0 else self.shapes[index][1]

    def _conv(self, in_channels, options):
        width, size, stride = (int(options[key]) for key in ("filters", "size", "stride"))
        if "batch_normalize" not in options:
            return nn.Conv2d(in_channels, width, size)
        groups = int(options.get("groups", 1))
        return ConvNormAct(in_channels, width, kernel=size, stride=stride, groups=groups, act=options["activation"])

    def named(self):
        """Yield (layer, darknet's name, parameter)."""
        for index, layer in enumerate(self.layers):
            conv = layer.conv if isinstance(layer, ConvNormAct) else layer
            if getattr(conv, "weight", None) is not None:
                yield index, "weights", conv.weight
            if isinstance(layer, ConvNormAct):
                yield index, "biases", layer.bn.bias
                yield index, "scales", layer.bn.weight
            elif isinstance(layer, nn.Conv2d):
                yield index, "biases", layer.bias

    @torch.no_grad()
    def _fill(self, run):
        for index, name, parameter in self.named():
            parameter.copy_(torch.from_numpy(run[f"param/{index:03d}/{name}"]))
        for index, layer in enumerate(self.layers):
            if isinstance(layer, ConvNormAct):
                layer.bn.running_mean.copy_(torch.from_numpy(run[f"param/{index:03d}/rolling_mean"]))
                layer.bn.running_var.copy_(torch.from_numpy(run[f"param/{index:03d}/rolling_variance"]))

    def forward(self, x):
        outputs = []
        for index, (kind, options) in enumerate(self.sections):
            outputs.append(self._run(index, kind, options, outputs[-1] if outputs else x, outputs))
        return outputs

    def _run(self, index, kind, options, x, outputs):
        if kind == "shortcut":
            return self.layers[index](x, *(outputs[k] for k in self.sources(index, "from")))
        if kind == "route":
            return torch.cat([outputs[k] for k in self.sources(index, "layers")], 1)
        simple = {
            "convolutional": lambda: self.layers[index](x),
            "maxpool": lambda: self._max_pool(x, options),
            "local_avgpool": lambda: recorded_avg_pool(x, int(options["size"]), int(options["stride"])),
            "reorg3d": lambda: reorg3d(x, int(options["stride"])),
            "avgpool": lambda: x.mean((2, 3), keepdim=True),
            "softmax": lambda: x.flatten(1),
        }
        return simple[kind]()

    def _max_pool(self, x, options):
        if "maxpool_depth" in options:
            return maxout(x, int(options["out_channels"]))
        return darknet_max_pool2d(x, int(options["size"]), int(options["stride"]))


def recorded_avg_pool(x, size, stride):
    """Average the valid cells, but share out the gradient over all size^2 cells: the recording's CPU code does so.

    Ours is the true gradient (`test_pooling`); the two differ in windows at the edge.
    """
    pooled = local_avg_pool2d(x, size, stride)
    rows, columns = (pooled.shape[2] * size - x.shape[2], pooled.shape[3] * size - x.shape[3])
    slope = F.avg_pool2d(F.pad(x, (0, columns, 0, rows)), size, stride)
    return slope + (pooled - slope).detach()


def load(name, fusion_gradient="darknet"):
    with np.load(FIXTURES / f"gputrain_{name}.npz") as arrays:
        run = {key: arrays[key] for key in arrays}
    return run, RecordedNetwork(run, fusion_gradient).train()


def loss_of(run, network):
    logits = network(torch.from_numpy(run["input"]))[-1]
    return F.cross_entropy(logits, torch.from_numpy(run["truth"]))


def optimizer_of(network):
    """Darknet's optimizer for the network, with the burn-in that each shortcut asks for."""
    batch, burn_in = int(network.net["batch"]), int(network.net.get("burn_in", 0))
    decayed, others = split_parameters(network)
    fusion = {id(parameter) for parameter in fusion_parameters(network)}
    groups = [
        {"params": decayed, "weight_decay": DECAY},
        {"params": [p for p in others if id(p) not in fusion], "weight_decay": 0.0},
    ]
    for layer, (_, options) in zip(network.layers, network.sections, strict=True):
        if parameters := fusion_parameters(layer):
            held = int(options.get("burnin_update", 0)) * burn_in
            groups.append(fusion_group(parameters, batch_size=batch, held_until=held))
    return FusionSGD([group for group in groups if group["params"]], lr=0.1, momentum=MOMENTUM)


def assert_close(actual, expected, tolerance, what):
    scale = max(1.0, np.abs(expected).max())
    assert np.abs(actual.detach().numpy() - expected).max() <= tolerance * scale, what


@pytest.mark.parametrize("name", RUNS)
def test_gradients_are_those_of_darknets_gpu(name):
    run, network = load(name)
    loss_of(run, network).mul(-len(run["input"])).backward()
    for index, key, parameter in network.named():
        assert_close(parameter.grad, run[f"grad/{index:03d}/{key}"], 1e-5, f"layer {index} {key}")


@pytest.mark.parametrize("name", [*WEIGHTED, "burnin"])
def test_the_two_fusion_gradients_are_the_recorded_ones(name):
    for fusion_gradient, key in (("darknet", "gpu_grad"), ("true", "true_grad")):
        run, network = load(name, fusion_gradient)
        loss_of(run, network).mul(-len(run["input"])).backward()
        for index, layer in enumerate(network.layers):
            if isinstance(layer, WeightedShortcut):
                expected = run[f"{key}/{index:03d}/weights"]
                np.testing.assert_allclose(layer.weight.grad, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", RUNS)
def test_parameters_and_statistics_after_every_step_are_darknets(name):
    run, network = load(name)
    optimizer = optimizer_of(network)
    steps = json.loads(str(run["meta"]))["steps"]
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = float(run[f"step{step}/lr"][0])
        optimizer.zero_grad()
        loss_of(run, network).backward()
        optimizer.step()
        for index, key, parameter in network.named():
            assert_close(parameter, run[f"step{step}/{index:03d}/{key}"], 2e-6, f"step {step} layer {index} {key}")
        for index, layer in enumerate(network.layers):
            if isinstance(layer, ConvNormAct):
                statistics = {"rolling_mean": layer.bn.running_mean, "rolling_variance": layer.bn.running_var}
                for key, value in statistics.items():
                    assert_close(value, run[f"step{step}/{index:03d}/{key}"], 2e-6, f"step {step} layer {index} {key}")


def parameter_with_gradient(value, gradient):
    parameter = nn.Parameter(torch.tensor([value]))
    parameter.grad = torch.tensor([gradient])
    return parameter


def test_the_carried_update_is_clipped_to_one_image_and_the_rest_carries_on():
    """Batch 4: u = clip(momentum u + gradient, 1 / 4)."""
    weight = parameter_with_gradient(1.0, 2.0)
    optimizer = FusionSGD([fusion_group([weight], batch_size=4)], lr=0.1, momentum=0.9)
    optimizer.step()
    assert weight.item() == pytest.approx(1 - 0.1 * 0.25)
    weight.grad.fill_(0.0)
    optimizer.step()
    assert weight.item() == pytest.approx(1 - 0.1 * 0.25 - 0.1 * 0.225)


def test_held_weights_stay_and_their_gradients_add_up_without_momentum():
    weight = parameter_with_gradient(1.0, 0.01)
    optimizer = FusionSGD([fusion_group([weight], batch_size=4, held_until=4)], lr=0.1, momentum=0.5)
    for _ in range(3):
        optimizer.step()
        assert weight.item() == 1.0
    optimizer.step()
    assert weight.item() == pytest.approx(1 - 0.1 * 0.04)


def test_a_loaded_state_goes_on_with_the_hold_and_the_momentum():
    runs = []
    for interrupted in (False, True):
        weight = parameter_with_gradient(1.0, 0.01)
        optimizer = FusionSGD([fusion_group([weight], batch_size=4, held_until=3)], lr=0.1, momentum=0.5)
        for step in range(6):
            if interrupted and step in {1, 4}:
                state = optimizer.state_dict()
                optimizer = FusionSGD([fusion_group([weight], batch_size=4, held_until=3)], lr=0.1, momentum=0.5)
                optimizer.load_state_dict(state)
            optimizer.step()
        runs.append(weight.item())
    assert runs[0] == runs[1] != 1.0


def test_other_groups_and_closures_work_as_in_sgd():
    weights = [parameter_with_gradient(1.0, 1.0) for _ in range(2)]
    ours = FusionSGD([{"params": weights[:1]}, fusion_group([parameter_with_gradient(1.0, 1.0)], batch_size=1)], lr=0.1)
    torchs = torch.optim.SGD(weights[1:], lr=0.1)
    assert ours.step(lambda: 3.0) == 3.0
    torchs.step()
    assert weights[0].item() == weights[1].item()
    assert len(ours.param_groups) == 2


def test_fusion_weights_are_found_by_name_and_only_where_they_are_trained():
    shortcut = WeightedShortcut((4, 4), weights_type="per_channel", normalization="softmax")
    frozen = WeightedShortcut((4, 4), weights_type="per_feature", normalization="relu").requires_grad_(False)
    model = nn.Sequential(nn.Conv2d(2, 2, 1), shortcut, frozen, WeightedShortcut((4, 4)), Maxout((4, 4)))
    assert [id(p) for p in fusion_parameters(model)] == [id(shortcut.weight)]


def test_the_recipe_chooses_the_rule():
    model = nn.Sequential(nn.Conv2d(2, 2, 1), WeightedShortcut((2, 2), weights_type="per_feature"))
    plain = create_optimizer(model, Optim(), lr=0.1)
    assert type(plain) is torch.optim.SGD
    assert len(plain.param_groups) == 2
    optim = Optim(fusion_update="darknet", burnin_update=2)
    darknets = create_optimizer(model, optim, lr=0.1, batch_size=128, burn_in=1000)
    *_, fusion = darknets.param_groups
    assert (fusion["clip"], fusion["held_until"], fusion["weight_decay"]) == (1 / 128, 2000, 0.0)
    assert sum(len(group["params"]) for group in darknets.param_groups) == 3


def test_a_network_without_fusion_weights_gets_plain_sgd():
    optim = Optim(fusion_update="darknet")
    assert type(create_optimizer(nn.Conv2d(2, 2, 1), optim, lr=0.1)) is torch.optim.SGD
