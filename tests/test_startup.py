"""Help, lists and errors of the command line come before torch is imported: exact facts, no times."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from backbones.__main__ import COMMANDS

ROOT = Path(__file__).parents[1]
TRAIN, EVAL, BACKBONES = ["train_imagenet.py"], ["eval.py"], ["-m", "backbones"]
SYNTHETIC = [*TRAIN, "--loader", "synthetic"]

ANSWERS = [
    ([*TRAIN, "--help"], "--batch-size"),
    ([*EVAL, "--help"], "--ckpt"),
    ([*BACKBONES], "usage: python -m backbones COMMAND"),
    ([*BACKBONES, "--help"], "usage: python -m backbones COMMAND"),
    ([*BACKBONES, "list", "csresnext50*mi2"], "csresnext50_ws_mi2"),
    ([*BACKBONES, "list", "csresnext50", "--json"], '"parameters": 20557480'),
    *(([*BACKBONES, command, "--help"], f"usage: python -m backbones {command}") for command in COMMANDS),
]
"""Command line, and a part of what it prints."""

ERRORS = [
    ([*TRAIN, "--batch-szie", "8"], "unknown option --batch-szie. Did you mean --batch-size"),
    ([*TRAIN, "--batch-size", "many"], "batch_size=many is not valid: it must be an integer"),
    ([*TRAIN, "--batch-size", "-1"], "batch_size=-1 must be"),
    ([*TRAIN, "--precision", "bf61"], "Did you mean bf16"),
    ([*TRAIN, "--lr"], "--lr needs a value"),
    ([*TRAIN, "--epochs", "1", "--steps", "1"], "epochs"),
    ([*TRAIN, "--resume", "a", "--pretrained"], "keep one of them"),
    ([*TRAIN, "--resume", "/nowhere/run"], "there is no /nowhere/run"),
    ([*TRAIN, "--config", "missing.yaml"], "there is no such file"),
    ([*TRAIN], "--data-dir is missing"),
    ([*TRAIN, "--data-dir", "/nowhere"], "/nowhere is not a folder"),
    ([*SYNTHETIC, "--model", "csresnext50_ws_mi3"], "Did you mean csresnext50_ws_mi2"),
    ([*SYNTHETIC, "--model", "resnet5O"], "Did you mean resnet50"),
    ([*SYNTHETIC, "--model", "missing.cfg"], "missing.cfg"),
    ([*SYNTHETIC, "--model", "csresnext50", "--model-args", "{act: leeky}"], "Did you mean leaky"),
    ([*SYNTHETIC, "--model-args", "{checkpoint_path: missing.pth}"], "there is no such file"),
    ([*EVAL], "--ckpt CKPT"),
    ([*EVAL, "--ckpt", "/nowhere/run"], "there is no /nowhere/run"),
    ([*EVAL, "--ckpt", "setup", "--layout", "floders"], "Did you mean folders"),
    ([*BACKBONES, "lost"], "no command 'lost'. Did you mean list"),
    ([*BACKBONES, "list", "csresnet50"], "Did you mean csresnext50"),
    ([*BACKBONES, "summary", "csresnext5O"], "Did you mean csresnext50"),
    ([*BACKBONES, "convert", "a.cfg"], "--out is missing"),
    ([*BACKBONES, "convert", "a.cfg", "--out", "a.weights"], "a .weights becomes"),
    ([*BACKBONES, "predict", "/nowhere/run"], "IMAGE is missing"),
    ([*BACKBONES, "inspect", "/nowhere/run"], "there is no /nowhere/run"),
    ([*BACKBONES, "doctor"], "--data-dir is missing"),
    ([*BACKBONES, "bench", "--model", "csresnext5O"], "Did you mean csresnext50"),
    ([*BACKBONES, "bench", "--rounds", "0"], "rounds=0 must be"),
    ([*BACKBONES, "bench", "--json", "/nowhere/a.json"], "there is no folder /nowhere"),
    ([*BACKBONES, "launch", "slurm"], "is missing"),
    ([*BACKBONES, "prepare", "/nowhere", "--out", "/nowhere/out"], "/nowhere"),
    ([*BACKBONES, "verify", "/nowhere"], "/nowhere is not a folder"),
    ([*BACKBONES, "replay", "/nowhere"], "/nowhere"),
]
"""Wrong command line, and a part of the message."""


@pytest.fixture(scope="module")
def outcomes() -> dict[tuple[str, ...], dict[str, object]]:
    """What every command line did; all of them run in one process, which starts without torch."""
    lines = [words for words, _ in ANSWERS + ERRORS]
    command = [sys.executable, "-m", "tests.probes.startup"]
    done = subprocess.run(command, cwd=ROOT, input=json.dumps(lines), capture_output=True, text=True, check=True)
    return dict(zip(map(tuple, lines), json.loads(done.stdout), strict=True))


@pytest.mark.parametrize(("words", "part"), ANSWERS)
def test_an_answer_needs_no_torch(outcomes, words, part):
    found = outcomes[tuple(words)]
    assert (found["status"], found["loaded"]) == (0, [])
    assert part in found["output"]


@pytest.mark.parametrize(("words", "part"), ERRORS)
def test_an_error_of_the_command_line_needs_no_torch(outcomes, words, part):
    found = outcomes[tuple(words)]
    assert found["loaded"] == []
    assert found["status"] in (1, 2)
    assert str(found["output"]).startswith("error: ")
    assert part in found["output"]
