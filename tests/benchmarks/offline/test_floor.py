"""The recorded floors are complete."""

import json
from pathlib import Path

import backbones

FILE = Path(__file__).parents[2] / "fixtures" / "compiled_floor.json"


def test_every_network_has_its_floor():
    networks = json.loads(FILE.read_text())["networks"]
    assert set(backbones.list_models()) <= set(networks)


def test_what_torch_compile_keeps_is_never_below_the_floor():
    for floors in json.loads(FILE.read_text())["networks"].values():
        assert floors["partitioner"] <= floors["torch_compile"]
