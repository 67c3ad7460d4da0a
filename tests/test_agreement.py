"""DALI and the torchvision reference give one network the same top-1, whatever the protocol of evaluation."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import eval as evaluation_script
from backbones.dataset.digits import write_digits
from tests import accelerate_state
from train_imagenet import main

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("fresh_accelerate")]
PROTOCOLS = {
    "darknet": [],
    "timm": ["--protocol", "timm", "--crop-pct", "0.875", "--interpolation", "bicubic"],
    "full": ["--protocol", "full"],
}
OPTIONS = ["--model", "test_resnet", "--batch-size", "32", "--workers", "2", "--bn-momentum", "0.1", "--device", "cpu"]
OPTIONS += ["--augmentation", "inception", "--hflip", "0", "--no-mosaic", "--no-cutmix"]


def stripes(label: int, height: int, width: int, random: np.random.Generator) -> Image.Image:
    """Stripes in one of ten directions, so faint that a network errs on some."""
    y, x = np.mgrid[0:height, 0:width] * (8 * np.pi / min(height, width))
    angle = np.pi * (label + random.normal(0, 0.5)) / 10
    wave = np.cos(np.cos(angle) * x + np.sin(angle) * y + random.uniform(0, 6))[..., None]
    noise = random.normal(128, 40, (height, width, 3))
    return Image.fromarray((noise + 12 * wave).clip(0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def striped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1,000 training and 2,000 validation images of ten classes and many sizes."""
    root, random = tmp_path_factory.mktemp("stripes"), np.random.default_rng(0)
    for split, count in (("train", 100), ("val", 200)):
        for label in range(10):
            (root / split / str(label)).mkdir(parents=True)
            for number in range(count):
                image = stripes(label, *random.integers(60, 180, 2).tolist(), random)
                image.save(root / split / str(label) / f"{number:03d}.jpg", quality=90)
    return root


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_digits(tmp_path_factory.mktemp("digits") / "digits")


def top1_of_both(data: Path, run: Path, protocol: str) -> list[float]:
    figures = []
    for loader in ("dali", "reference"):
        accelerate_state.reset()
        words = ["--ckpt", str(run), "--data-dir", str(data), "--loader", loader, *PROTOCOLS[protocol]]
        figures.append(evaluation_script.main(words).top1)
    return figures


@pytest.mark.parametrize("name", ["striped", "digits"])
def test_top1_agrees_within_a_tenth_of_a_point(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    data = request.getfixturevalue(name)
    size = {"striped": ["--img-size", "64", "--epochs", "6"], "digits": ["--img-size", "32", "--epochs", "4"]}[name]
    run = tmp_path / "run"
    trained = main([*OPTIONS, *size, "--lr", "0.05", "--data-dir", str(data), "--output", str(run)])
    assert 30 < trained.top1 < 99.9  # neither chance nor trivial: a wrong pixel would show
    for protocol in PROTOCOLS:
        ours, theirs = top1_of_both(data, run, protocol)
        assert abs(ours - theirs) <= 0.1, (protocol, ours, theirs)
        print(name, protocol, ours, theirs)  # noqa: T201
