"""Runs of seconds on 64 training and 21 validation images of 64 x 64 pixels in 4 classes."""

import json
from collections.abc import Callable
from pathlib import Path

import eval as evaluation_script
from backbones.training.evaluate import Evaluation
from tests import accelerate_state
from train_imagenet import main

CLASSES = ("ant", "bee", "cow", "dog")
TINY = ["--model", "test_resnet", "--img-size", "32", "--batch-size", "16", "--epochs", "1", "--workers", "1"]
TINY += ["--bn-momentum", "0.1", "--device", "cpu", "--log.interval", "1"]
BAD = "train/bee/003.jpg"


def train(data: Path, *words: str, output: Path | None = None) -> Evaluation:
    accelerate_state.reset()
    return main([*TINY, "--data-dir", str(data), "--output", str(output or data.parent / "run"), *words])  # type: ignore[return-value]


def evaluate(data: Path, *words: str) -> Evaluation:
    accelerate_state.reset()
    return evaluation_script.main(["--ckpt", str(data.parent / "run"), "--data-dir", str(data), *words])


def rows(data: Path) -> list[dict]:
    return [json.loads(line) for line in (data.parent / "run" / "metrics.jsonl").read_text().splitlines()]


def spoil(path: Path, change: Callable[[bytes], bytes]) -> None:
    path.write_bytes(change(path.read_bytes()))
