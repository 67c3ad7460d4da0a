"""Options of a run of seconds, and what tests do with its folder."""

import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file

from backbones.training.run_files import MODEL

TINY = ["--model", "test_resnet", "--img-size", "32", "--batch-size", "16", "--epochs", "2", "--workers", "1"]
TINY += ["--bn-momentum", "0.1", "--device", "cpu", "--log.interval", "2"]


def copy_of(image_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(image_folder, tmp_path / "data"))


def equal_weights(a: Path, b: Path) -> bool:
    first, second = load_file(a / "last" / MODEL), load_file(b / "last" / MODEL)
    return all(torch.equal(value, second[key]) for key, value in first.items())
