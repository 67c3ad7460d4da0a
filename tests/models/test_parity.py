"""Our twelve networks against darknet's: the table of layers, and every layer's numbers at 256x256."""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import backbones
from backbones.darknet import bflops
from backbones.layers import ConvNormAct, Maxout, WeightedShortcut

FIXTURES = Path(__file__).parents[1] / "fixtures" / "darknet"
CONV, MAXPOOL, SHORTCUT = "0", "3", "14"
ACTS = {nn.Identity: "4", nn.Mish: "18"}
SEED = 7
RECORDS = {
    "csresnext50": ("csresnext50-omega", {"batch": 2, "gain": 1.2}),
    "csresnext50_ws": ("csresnext50-ws", {"batch": 1, "gain": 1.2}),
    "csresnext50_ws_mi2": ("csresnext50-ws-mi2", {"batch": 1, "gain": 1.2}),
    "csresnext50_morelayers": ("csresnext50morelayers", {"batch": 1, "gain": 1.2}),
    "csresnext50sub": ("csresnext50sub", {"batch": 1, "gain": 1.2}),
    "csresnext50sub_mi2": ("csresnext50sub-mi2", {"batch": 1, "gain": 1.2}),
    "csresnext50sub_mo": ("csresnext50sub-mo", {"batch": 1, "gain": 1.2}),
    "csdarknet53": ("csdarknet53-omega", {"batch": 2, "gain": 1.1}),
    "csdarknet53_ws": ("csdarknet53-ws", {"batch": 1, "gain": 1.1}),
    "csdarknet53_omega_mi": ("csdarknet53-omega-mi", {"batch": 1, "gain": 1.1}),
    "csdarknet53_omega_mi_db": ("csdarknet53-omega-mi-db", {"batch": 1, "gain": 1.1}),
    "csdarknet53_omega_mi_ip": ("csdarknet53-omega-mi-ip", {"batch": 1, "gain": 1.1}),
}
PUBLISHED = {
    "csresnext50": (20_557_480, 7.933),
    "csresnext50_ws": (20_557_506, 7.937),
    "csresnext50_ws_mi2": (20_557_515, 7.941),
    "csresnext50_morelayers": (23_707_816, 8.852),
    "csresnext50sub": (23_309_992, 8.741),
    "csresnext50sub_mi2": (23_310_027, 8.748),
    "csresnext50sub_mo": (23_309_992, 8.743),
    "csdarknet53": (27_642_184, 13.071),
    "csdarknet53_ws": (27_642_230, 13.074),
    "csdarknet53_omega_mi": (27_642_248, 13.077),
    "csdarknet53_omega_mi_db": (27_642_248, 13.077),
    "csdarknet53_omega_mi_ip": (27_648_392, 13.096),
}
"""Trainable parameters and BFLOPs, as darknet prints them."""
every_model = pytest.mark.parametrize("name", RECORDS)


def read_table(name):
    """Return (layers, totals): one dict of words for each line of darknet's table."""
    *lines, last = (FIXTURES / f"{RECORDS[name][0]}.layers.txt").read_text().splitlines()
    words = [dict(word.split("=") for word in line.split() if "=" in word) for line in lines]
    return words, dict(word.split("=") for word in last.split() if "=" in word)


def darknet_indices(name):
    """Return darknet's numbers of the convolutions, shortcuts and maxouts before the head."""
    table, _ = read_table(name)
    return [i for i, row in enumerate(table) if row["type"] in {CONV, SHORTCUT} or is_maxout(row)][:-1]


def is_maxout(row):
    """Of all the max pools only maxout changes the number of channels."""
    return row["type"] == MAXPOOL and row["in"].split("x")[2] != row["out"].split("x")[2]


def units(model) -> Iterator[nn.Module]:
    return (module for module in model.modules() if isinstance(module, ConvNormAct | WeightedShortcut | Maxout))


def watch(model, name, notice):
    """Call ``notice(index, module, inputs, output)`` for each unit that runs, with darknet's layer number."""
    numbers = dict(zip(units(model), darknet_indices(name), strict=True))
    for module, index in numbers.items():
        module.register_forward_hook(lambda *args, index=index: notice(index, *args))


def geometry(tensor):
    _, channels, height, width = tensor.shape
    return f"{width}x{height}x{channels}"


def describe(module, inputs, output, outputs):
    """Say about one of our units what darknet's table says."""
    if isinstance(module, Maxout):
        return {"type": MAXPOOL, "in": geometry(torch.cat(inputs, 1)), "out": geometry(output), "size": "1"}
    common = {
        "in": geometry(inputs[0]),
        "out": geometry(output),
        "act": ACTS[type(module.act)],
        "params": str(sum(p.numel() for p in module.parameters())),
    }
    if isinstance(module, WeightedShortcut):
        sources = [next(k for k, seen in outputs.items() if seen is x) for x in inputs[1:]]
        return {
            **common,
            "type": SHORTCUT,
            "n": str(len(sources)),
            "from": "".join(f"{k}," for k in sources),
        }
    conv = module.conv
    return {
        **common,
        "type": CONV,
        "n": str(conv.out_channels),
        "size": str(conv.kernel_size[0]),
        "stride": str(conv.stride[0]),
        "pad": str(conv.padding[0]),
        "groups": str(conv.groups),
        "bn": "1",
    }


@every_model
def test_every_convolution_and_shortcut_is_the_one_of_darknets_table(name):
    with torch.device("meta"):
        model = backbones.create_model(name)
    table, _ = read_table(name)
    outputs, order = {}, []

    def compare(index, module, inputs, output):
        ours = describe(module, inputs, output, outputs)
        assert ours == {key: table[index][key] for key in ours}, f"layer {index}"
        outputs[index] = output
        order.append(index)

    watch(model, name, compare)
    model(torch.empty(1, 3, 256, 256, device="meta"))
    assert order == darknet_indices(name), "modules() must follow darknet's order"


def test_each_maxout_takes_what_darknets_route_concatenates():
    name = "csresnext50sub_mo"
    with torch.device("meta"):
        model = backbones.create_model(name)
    table, _ = read_table(name)
    outputs, routes = {}, []

    def compare(index, module, inputs, output):
        if isinstance(module, Maxout):
            sources = [next(k for k, seen in outputs.items() if seen is x) for x in inputs]
            routes.append("".join(f"{k}," for k in sources) == table[index - 1]["from"])
        outputs[index] = output

    watch(model, name, compare)
    model(torch.empty(1, 3, 256, 256, device="meta"))
    assert routes == [True] * 4


@every_model
def test_parameters_and_bflops_are_those_darknet_prints(name):
    with torch.device("meta"):
        model = backbones.create_model(name)
    parameters, operations = PUBLISHED[name]
    _, totals = read_table(name)
    assert sum(p.numel() for p in model.parameters()) == parameters
    counted = bflops(model)
    assert round(counted, 3) == operations
    assert abs(counted - float(totals["bflops"])) < 2e-6  # darknet adds up in float32


@every_model
def test_the_totals_are_those_of_darknets_table(name):
    with torch.device("meta"):
        model = backbones.create_model(name)
    _, totals = read_table(name)
    fusion = [m.weight for m in model.modules() if isinstance(m, WeightedShortcut) if m.weight is not None]
    buffers = [b for key, b in model.named_buffers() if "running" in key]
    assert sum(p.numel() for p in model.parameters()) == int(totals["trainable"])
    assert sum(b.numel() for b in buffers) == int(totals["bn_buffers"])
    assert sum(weight.numel() for weight in fusion) == int(totals["shortcut_w"])


def uniform(random, low, high, shape):
    values = (low + (high - low) * random.random_sample(math.prod(shape))).astype(np.float32)
    return torch.from_numpy(values.reshape(shape))


@torch.no_grad()
def fill(module, index, gain):
    """Draw the parameters of darknet's layer ``index`` as the recording did."""
    random = np.random.RandomState([SEED, index])
    if isinstance(module, Maxout):
        return
    if isinstance(module, WeightedShortcut):
        if module.weight is not None:
            module.weight.copy_(uniform(random, 0.25, 1.75, module.weight.shape))
        return
    norm = module.bn if isinstance(module, ConvNormAct) else None
    conv = module.conv if isinstance(module, ConvNormAct) else module
    count = (conv.weight.shape[0],)
    (norm or conv).bias.copy_(uniform(random, -0.2, 0.2, count))
    if norm is not None:
        norm.weight.copy_(uniform(random, 0.5, 1.5, count))
        norm.running_mean.copy_(uniform(random, -0.2, 0.2, count))
        norm.running_var.copy_(uniform(random, 0.5, 1.5, count))
    bound = gain * math.sqrt(3 / conv.weight[0].numel())
    conv.weight.copy_(uniform(random, -bound, bound, conv.weight.shape))


def create_filled(name, gain):
    model = backbones.create_model(name).eval()
    classifier = max(index for index, row in enumerate(read_table(name)[0]) if row["type"] == CONV)
    for module, index in zip(units(model), darknet_indices(name), strict=True):
        fill(module, index, gain)
    fill(model.get_classifier(), classifier, gain)
    return model


def statistics(output):
    x = output.double()
    return [x.mean(), x.std(correction=0), x.min(), x.max(), x.abs().mean()]


def samples(output):
    positions = np.linspace(0, output.numel() - 1, 16).astype(np.int64)
    return output.flatten()[torch.from_numpy(positions)]


def close(actual, expected, scale, tolerance):
    difference = np.abs(np.asarray(actual, np.float64) - np.asarray(expected, np.float64)).max()
    return difference <= tolerance * scale


@every_model
@torch.no_grad()
def test_every_layer_computes_what_darknet_computes(name):
    record, options = RECORDS[name]
    recorded = np.load(FIXTURES / f"{record}_256.npz")
    model = create_filled(name, options["gain"])
    compared = []

    def compare(index, _module, _inputs, output):
        deviation = recorded["stats"][index][1]
        assert close(statistics(output), recorded["stats"][index], deviation, 1e-4), f"layer {index}"
        assert close(samples(output), recorded["samples"][index], deviation, 1e-4), f"layer {index}"
        compared.append(index)

    watch(model, name, compare)
    shape = (options["batch"], 3, 256, 256)
    images = np.random.RandomState([SEED, 999983]).random_sample(shape).astype(np.float32)
    features = model.forward_features(torch.from_numpy(images))
    pool = model.forward_head(features, pre_logits=True)
    logits = model.forward_head(features)
    expected_pool = recorded["pool"].reshape(pool.shape)
    expected_logits = recorded["logits"].reshape(logits.shape)
    assert compared == darknet_indices(name)
    assert close(pool, expected_pool, np.abs(expected_pool).max(), 1e-5)
    assert close(logits, expected_logits, np.abs(expected_logits).max(), 1e-5)
