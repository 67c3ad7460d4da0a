"""The twelve networks of the thread three ways: recorded by darknet, built from the cfg, built by name."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import nn

import backbones
from backbones.darknet.cfg import read_cfg
from backbones.darknet.network import DarknetNetwork, load_cfg
from backbones.darknet.shapes import infer_layers
from backbones.darknet.trace import save_cfg, trace
from backbones.darknet.weights import load_weights, save_weights
from backbones.layers.fuse import fuse
from backbones.models import VARIANTS
from tests.darknet.recordings import FIXTURES, Recording, assert_close_to_scale, fill, resolve_options, seeded_values

THREAD = {
    "csresnext50": "csresnext50-omega",
    "csresnext50_ws": "csresnext50-ws",
    "csresnext50_ws_mi2": "csresnext50-ws-mi2",
    "csresnext50_morelayers": "csresnext50morelayers",
    "csresnext50sub": "csresnext50sub",
    "csresnext50sub_mi2": "csresnext50sub-mi2",
    "csresnext50sub_mo": "csresnext50sub-mo",
    "csdarknet53": "csdarknet53-omega",
    "csdarknet53_ws": "csdarknet53-ws",
    "csdarknet53_omega_mi": "csdarknet53-omega-mi",
    "csdarknet53_omega_mi_db": "csdarknet53-omega-mi-db",
    "csdarknet53_omega_mi_ip": "csdarknet53-omega-mi-ip",
}
every_file = pytest.mark.parametrize("name", THREAD.values())
every_model = pytest.mark.parametrize("name", [name for name in VARIANTS if name in THREAD])
every_variant = pytest.mark.parametrize("name", VARIANTS)


def cfg_file(name: str) -> Path:
    return FIXTURES / f"{name}.cfg"


def table(name: str) -> tuple[list[dict[str, str]], dict[str, str]]:
    *rows, total = (FIXTURES / f"{name}.layers.txt").read_text().splitlines()
    words = [dict(word.split("=") for word in row.split() if "=" in word) for row in [*rows, total]]
    return words[:-1], words[-1]


def shape_of(name: str) -> nn.Module:
    """Return a network without values, which is made in no time."""
    with torch.device("meta"):
        return backbones.create_model(name)


@dataclass
class Computed:
    """A cfg network with seeded parameters, and its logits for the seeded images."""

    network: DarknetNetwork
    recorded: Recording
    images: torch.Tensor
    logits: torch.Tensor


@pytest.fixture(scope="module", params=THREAD.values())
def computed(request) -> Computed:
    recorded = Recording(f"{request.param}_256")
    network = load_cfg(cfg_file(request.param)).eval()
    for index, module in enumerate(network.layers):
        fill(module, seeded_values(network, index, recorded.meta["gain"]))
    images = recorded.images()
    with torch.no_grad():
        return Computed(network, recorded, images, network(images))


def name_of(computed: Computed) -> str:
    file = Path(computed.network.cfg.net.file).stem
    name = {file: name for name, file in THREAD.items()}[file]
    assert name in VARIANTS
    return name


def test_a_cfg_network_has_the_logits_that_darknet_computes(computed):
    assert_close_to_scale(computed.logits, computed.recorded["logits"])


@torch.no_grad()
def test_the_named_network_has_the_logits_of_the_cfg_network(computed, tmp_path):
    """The weights go through a file, so its order is tested as well."""
    name = name_of(computed)
    save_weights(computed.network, tmp_path / "a.weights", "sorted")
    model = backbones.create_model(name).eval()
    load_weights(model, tmp_path / "a.weights", "sorted")
    assert_close_to_scale(model(computed.images), computed.logits, tolerance=1e-6)
    save_weights(model, tmp_path / "b.weights", "sorted")
    assert (tmp_path / "b.weights").read_bytes() == (tmp_path / "a.weights").read_bytes()


@torch.no_grad()
def test_the_fused_network_has_the_same_logits(computed):
    assert_close_to_scale(fuse(computed.network)(computed.images), computed.logits)


@every_file
def test_the_inferred_layers_are_darknets_table_line_by_line(name):
    rows, total = table(name)
    layers = infer_layers(read_cfg(cfg_file(name)))
    for layer, row in zip(layers, rows, strict=True):
        ours = {"params": str(layer.parameters), "bf": f"{layer.flops / 1e9:.6f}"}
        ours["from"] = "".join(f"{source}," for source in layer.sources)
        if layer.kind != "softmax":  # darknet leaves its size out
            ours["out"] = f"{layer.output.width}x{layer.output.height}x{layer.output.channels}"
        if layer.kind != "route":  # darknet shows the size before the first source
            ours["in"] = f"{layer.input.width}x{layer.input.height}x{layer.input.channels}"
        assert ours == {key: row[key] for key in ours}, layer.index
    assert sum(layer.parameters for layer in layers) == int(total["trainable"])
    assert sum(layer.statistics for layer in layers) == int(total["bn_buffers"])


@every_model
def test_a_named_network_is_written_as_the_cfg_of_the_thread(name, tmp_path):
    save_cfg(shape_of(name), tmp_path / "a.cfg")
    written, expected = read_cfg(tmp_path / "a.cfg"), read_cfg(cfg_file(THREAD[name]))
    for index, (ours, theirs) in enumerate(zip(written.layers, expected.layers, strict=True)):
        assert resolve_options([ours]) == resolve_options([theirs]), index
    assert written.net.values == expected.net.values


@every_variant
def test_cfg_to_network_to_cfg_is_stable(name, tmp_path):
    model = shape_of(name)
    save_cfg(model, tmp_path / "a.cfg")
    with torch.device("meta"):
        network = load_cfg(tmp_path / "a.cfg")
    save_cfg(network, tmp_path / "b.cfg")
    assert (tmp_path / "b.cfg").read_bytes() == (tmp_path / "a.cfg").read_bytes()
    assert sum(p.numel() for p in network.parameters()) == sum(p.numel() for p in model.parameters())


@every_variant
def test_modules_have_darknets_order(name):
    model = shape_of(name)
    order = {module: position for position, module in enumerate(model.modules())}
    positions = [order[module] for module in trace(model).modules if isinstance(module, nn.Module)]
    assert positions == sorted(positions)
