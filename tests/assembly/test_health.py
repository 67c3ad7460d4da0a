"""The monitors are those that the network, the recipe and the processes call for, and they work in an assembled run."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from backbones import create_model
from backbones.assembly.health import find_shortcuts
from backbones.assembly.run import build_model, build_run, splits, train_loader, val_loader
from backbones.layers import WeightedShortcut
from backbones.recipe import Health, Log, Optim, Recipe, Synthetic
from backbones.training.loop import NoCheckpoints, Run, fit
from backbones.training.tracking import Tracker

pytestmark = pytest.mark.usefixtures("fresh_accelerate")

CFG = """
[net]
height=16
width=16
channels=3
[convolutional]
batch_normalize=1
filters=4
size=3
stride=2
pad=1
activation=mish
[convolutional]
filters=4
size=3
stride=1
pad=1
activation=linear
[shortcut]
from=-2
weights_type=per_feature
weights_normalization=relu
activation=linear
[avgpool]
[convolutional]
filters=3
size=1
activation=linear
[softmax]
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    """A run of 12 steps with a row at each, of a darknet network with one weighted shortcut."""
    (tmp_path / "tiny.cfg").write_text(CFG)
    return Recipe(
        model=str(tmp_path / "tiny.cfg"),
        img_size=16,
        batch_size=4,
        loader="synthetic",
        steps=12,
        device="cpu",
        lr=0.01,
        optim=Optim(burn_in=0),
        synthetic=Synthetic(classes=3, train_per_class=16, val_per_class=4),
        log=Log(interval=1),
        health=Health(fusion_interval=5),
    )


def assembled(recipe: Recipe, folder: Path | None = None, *, raw: float = 1.0) -> Run:
    accelerator = Accelerator(cpu=True)
    train, val = splits(recipe)
    loaders = train_loader(recipe, train, accelerator), val_loader(recipe, val, accelerator)
    model = build_model(recipe, len(train.classes))
    for shortcut in find_shortcuts(model):
        shortcut.weight.data[1] = raw
    tracker = Tracker(folder, recipe) if folder else None
    return build_run(recipe, accelerator, model, loaders, checkpoints=NoCheckpoints(), tracker=tracker)


def events(folder: Path) -> list[dict]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if "event" in row]


def test_a_dead_input_of_a_darknet_network_is_named(recipe, tmp_path):
    fit(assembled(recipe, tmp_path, raw=-0.01))
    (event,) = events(tmp_path)
    assert (event["step"], event["event"], event["input"]) == (5, "alarm/fusion_dead", 1)
    assert event["raw"] == pytest.approx(-0.01)  # no gradient, no change


def test_a_healthy_run_has_no_alarm_but_a_heartbeat(recipe, tmp_path):
    fit(assembled(recipe, tmp_path))
    assert events(tmp_path) == []
    assert json.loads((tmp_path / "heartbeat.json").read_text())["step"] == 12


def test_without_monitors_nothing_is_watched(recipe, tmp_path):
    run = assembled(replace(recipe, health=Health(monitors=False)), tmp_path, raw=-0.01)
    fit(run)
    assert run.report.health.monitors == ()
    assert events(tmp_path) == []
    assert not (tmp_path / "heartbeat.json").exists()


def test_a_run_without_a_folder_looks_at_no_disk(recipe):
    names = [type(monitor).__name__ for monitor in assembled(recipe).report.health.monitors]
    assert names == ["FusionWeights", "LossSpikes", "GradientSpikes", "BatchNormStatistics"]


def test_a_run_with_a_folder_watches_speed_and_disk_too(recipe, tmp_path):
    health = assembled(recipe, tmp_path).report.health
    names = [type(monitor).__name__ for monitor in health.monitors]
    assert names[4:] == ["DataStall", "ThroughputDrop", "DiskSpace", "CheckpointAge"]
    assert health.folder == tmp_path


@pytest.mark.parametrize(
    ("name", "inputs"),
    [("csresnext50_ws_mi2", 35), ("csresnext50sub_mo", 0), ("csresnext50", 0)],
)
def test_every_weighted_shortcut_of_a_network_is_watched(name, inputs):
    """13 shortcuts with 2, 2, 4, 2, 2, 4, 2, 2, 2, 2, 6, 2 and 3 inputs; maxout and plain sums have no weights."""
    shortcuts = find_shortcuts(create_model(name, num_classes=3))
    assert sum(len(shortcut.widths) for shortcut in shortcuts) == inputs


@pytest.mark.parametrize(
    ("fusion", "floor"),
    [
        ({"normalization": "relu"}, 0.001),
        ({"normalization": "relu", "floor": 0.0}, 0.0),
        ({"normalization": "relu", "fusion_gradient": "darknet"}, None),
        ({"normalization": "softmax"}, None),
    ],
)
def test_only_below_the_floor_of_relu_there_is_no_gradient(fusion, floor):
    layer = WeightedShortcut([2, 4, 1], weights_type="per_channel", **fusion)
    (shortcut,) = find_shortcuts(nn.Sequential(layer))
    assert shortcut.floor == floor
    assert shortcut.widths == [2, 2, 1]
    layer.weight.data[1] = -1.0  # type: ignore[union-attr]
    torch.stack([x.sum() for x in shortcut.shares()]).prod().backward()
    has_gradient = bool(shortcut.weight.grad[1].any())  # type: ignore[index]
    assert has_gradient == (floor is None)
