"""Darknet's training rules against recorded steps: gradients, and every parameter after each update."""

import json
import math
from configparser import ConfigParser
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from backbones.layers import ConvNormAct, Maxout, WeightedShortcut, fusion_weights, local_avg_pool2d, maxout, reorg3d
from backbones.layers.pooling import darknet_max_pool2d
from backbones.recipe import Optim
from backbones.training.fusion_update import FusionSGD, fusion_groups
from backbones.training.guard import forbid_update
from backbones.training.optim import create_optimizer
from backbones.training.schedule import poly_with_burn_in, set_lr

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
                burnin_update=int(options.get("burnin_update", 0)),
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
    """Darknet's optimizer for the network."""
    batch, burn_in = int(network.net["batch"]), int(network.net.get("burn_in", 0))
    optim = Optim(momentum=MOMENTUM, weight_decay=DECAY, fusion_update="darknet")
    return create_optimizer(
        network, optim, lr=0.1, fusion_weights=fusion_weights(network), batch_size=batch, burn_in=burn_in
    )


def schedule_of(net):
    """The learning rate as the cfg's [net] section has it."""
    lr = float(net["learning_rate"])
    if net["policy"] == "constant":
        return lambda _step: lr
    total, burn_in, power = (int(net[key]) for key in ("max_batches", "burn_in", "power"))
    return poly_with_burn_in(lr=lr, total_steps=total, burn_in=burn_in, power=power)


def assert_close(actual, expected, tolerance, what):
    scale = max(1.0, np.abs(expected).max())
    assert np.abs(actual.detach().numpy() - expected).max() <= tolerance * scale, what


@pytest.mark.parametrize("name", RUNS)
def test_every_layer_and_its_delta_are_darknets(name):
    run, network = load(name)
    x = torch.from_numpy(run["input"]).requires_grad_()
    outputs = network(x)
    F.cross_entropy(outputs[-1], torch.from_numpy(run["truth"]), reduction="sum").backward()
    for index, output in enumerate(outputs[:-1]):
        expected = run[f"out/{index:03d}"]
        assert_close(output.reshape(expected.shape), expected, 1e-5, f"layer {index}")
    assert_close(-x.grad, run["delta/input"], 1e-5, "the image")


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
    schedule = schedule_of(network.net)
    for step in range(json.loads(str(run["meta"]))["steps"]):
        set_lr(optimizer, schedule(step + 1))
        assert schedule(step + 1) == pytest.approx(float(run[f"step{step}/lr"][0]), rel=1e-6)
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


class OneWeight(nn.Module):
    """A module with a fusion weight of value 1 and a gradient."""

    def __init__(self, gradient):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.weight.grad = torch.tensor([gradient])


def darknets(model, *, momentum=0.5, **rule):
    return FusionSGD(fusion_groups([(model.weight, 0)], batch_size=4, **rule), lr=0.1, momentum=momentum)


def test_the_carried_update_is_clipped_to_one_image_and_the_rest_carries_on():
    """Batch 4: u = clip(momentum u + gradient, 1 / 4)."""
    model = OneWeight(2.0)
    optimizer = darknets(model, momentum=0.9)
    optimizer.step()
    assert model.weight.item() == pytest.approx(1 - 0.1 * 0.25)
    model.weight.grad.fill_(0.0)
    optimizer.step()
    assert model.weight.item() == pytest.approx(1 - 0.1 * 0.25 - 0.1 * 0.225)


def test_held_weights_stay_and_their_gradients_add_up_without_momentum():
    model = OneWeight(0.01)
    optimizer = darknets(model, burn_in=2, burnin_update=2)
    for _ in range(3):
        optimizer.step()
        assert model.weight.item() == 1.0
    optimizer.step()
    assert model.weight.item() == pytest.approx(1 - 0.1 * 0.04)


def test_a_loaded_state_goes_on_with_the_hold_and_the_momentum():
    results = []
    for breaks in (set(), {1, 4}):
        model = OneWeight(0.01)
        optimizer = darknets(model, burn_in=3, burnin_update=1)
        for step in range(6):
            if step in breaks:
                state = optimizer.state_dict()
                optimizer = darknets(model, burn_in=3, burnin_update=1)
                optimizer.load_state_dict(state)
            optimizer.step()
        results.append(model.weight.item())
    assert results[0] == results[1] != 1.0


def test_other_groups_and_closures_work_as_in_sgd():
    ours, torchs, fusion = OneWeight(1.0), OneWeight(1.0), OneWeight(1.0)
    optimizer = FusionSGD([{"params": [ours.weight]}, *fusion_groups([(fusion.weight, 0)], batch_size=1)], lr=0.1)
    assert optimizer.step(lambda: 3.0) == 3.0
    torch.optim.SGD([torchs.weight], lr=0.1).step()
    assert ours.weight.item() == torchs.weight.item()
    assert len(optimizer.param_groups) == 2


def slow_step(parameter, carried, gradient, *, clip, lr, momentum, held):
    """Darknet's rule for one weight, operation by operation."""
    carried = carried + gradient
    if held:
        return parameter, carried
    carried = carried.clamp(-clip, clip)
    return parameter - lr * carried, carried * momentum


@pytest.mark.parametrize("held_until", [0, 3])
@pytest.mark.parametrize("bad_step", [None, 2, 4])
def test_all_weights_of_a_group_move_together_and_each_as_alone_to_the_bit(held_until, bad_step):
    """A step that the device forbids moves none of them, though the host does not know it."""
    torch.manual_seed(0)
    shapes = [(2,), (3, 64), (1,), (2, 128)]
    weights = [nn.Parameter(torch.randn(shape)) for shape in shapes]
    expected = [(weight.detach().clone(), torch.zeros(shape)) for weight, shape in zip(weights, shapes, strict=True)]
    groups = fusion_groups([(weight, 1) for weight in weights], batch_size=4, burn_in=held_until)
    optimizer = FusionSGD(groups, lr=0.1, momentum=0.9, fused=True)
    for step in range(1, 7):
        gradients = [torch.randn(shape) * (math.nan if step == bad_step else 0.3) for shape in shapes]
        for weight, gradient in zip(weights, gradients, strict=True):
            weight.grad = gradient.clone()
        if bad_step is not None:
            forbid_update(optimizer, gradients[0].norm())
        optimizer.step()
        if step != bad_step:
            rule = {"clip": 0.25, "lr": 0.1, "momentum": 0.9, "held": step < held_until}
            expected = [slow_step(*pair, g, **rule) for pair, g in zip(expected, gradients, strict=True)]
        for weight, (value, carried) in zip(weights, expected, strict=True):
            assert torch.equal(weight, value)
            assert torch.equal(optimizer.state[weight]["momentum_buffer"], carried)


def test_a_step_makes_no_buffer_after_the_first():
    model = OneWeight(0.01)
    optimizer = darknets(model)
    optimizer.step()
    before = optimizer.state[model.weight]["momentum_buffer"]
    with CountedOperators() as counted:
        optimizer.step()
    assert optimizer.state[model.weight]["momentum_buffer"] is before
    assert not [name for name in counted.names if "zeros" in name or "clone" in name]


class CountedOperators(TorchDispatchMode):
    """Notes the name of every operator in the block."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func.__name__)
        return func(*args, **(kwargs or {}))


def test_fusion_weights_are_updated_only_where_they_are_trained():
    shortcut = WeightedShortcut((4, 4), weights_type="per_channel", normalization="softmax")
    frozen = WeightedShortcut((4, 4), weights_type="per_feature", normalization="relu").requires_grad_(False)
    model = nn.Sequential(nn.Conv2d(2, 2, 1), shortcut, frozen, WeightedShortcut((4, 4)), Maxout((4, 4)))
    (group,) = fusion_groups(fusion_weights(model), batch_size=1)
    assert [id(p) for p in group["params"]] == [id(shortcut.weight)]


def test_each_shortcut_is_held_as_long_as_it_asks_unless_the_recipe_overrules():
    def shortcut(hold):
        return WeightedShortcut((2, 2), weights_type="per_feature", burnin_update=hold)

    model = nn.Sequential(shortcut(0), shortcut(2), shortcut(0))
    held = {
        group["held_until"]: len(group["params"])
        for group in fusion_groups(fusion_weights(model), batch_size=1, burn_in=100)
    }
    assert held == {0: 2, 200: 1}
    (group,) = fusion_groups(fusion_weights(model), batch_size=1, burn_in=100, burnin_update=3)
    assert (group["held_until"], len(group["params"])) == (300, 3)


def test_the_recipe_chooses_the_rule():
    model = nn.Sequential(nn.Conv2d(2, 2, 1), WeightedShortcut((2, 2), weights_type="per_feature"))
    plain = create_optimizer(model, Optim(), lr=0.1)
    assert type(plain) is torch.optim.SGD
    assert len(plain.param_groups) == 2
    optim = Optim(fusion_update="darknet", burnin_update=2)
    optimizer = create_optimizer(
        model, optim, lr=0.1, fusion_weights=fusion_weights(model), batch_size=128, burn_in=1000
    )
    *_, fusion = optimizer.param_groups
    assert (fusion["clip"], fusion["held_until"], fusion["weight_decay"]) == (1 / 128, 2000, 0.0)
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 3


def test_a_network_without_fusion_weights_gets_plain_sgd():
    optim = Optim(fusion_update="darknet")
    assert type(create_optimizer(nn.Conv2d(2, 2, 1), optim, lr=0.1)) is torch.optim.SGD
