"""What tests of several parts share: a small data set of real JPEG files, and a fresh accelerate in each test."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch._dynamo.utils import counters

from backbones.dataset.index import Index
from backbones.dataset.sources.folder import scan_folder
from backbones.training import compilation
from tests import accelerate_state
from tests.dataset.make_pictures import save_image, write_split
from tests.dataset.make_sources import Images, make_images
from tests.tiny_runs import TINY
from tests.training.wandb_server import KEY, WandbServer, serve
from train_imagenet import main

CLASSES = ("ant", "bee", "cow", "dog")


class Clock:
    """A clock that tells ``now``."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="session", autouse=True)
def _quiet_machine():
    """One thread per process: the tests run side by side."""
    torch.set_num_threads(1)


@pytest.fixture
def fresh_accelerate():
    """A test that makes an Accelerator starts and leaves without one."""
    accelerate_state.reset()
    yield
    accelerate_state.reset()


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], int]]:
    """Compile without a C++ compiler, which is fast, and return the function that counts the compiled graphs."""
    monkeypatch.setattr(compilation, "BACKEND", "aot_eager")
    torch._dynamo.reset()
    counters.clear()
    yield lambda: counters["stats"]["unique_graphs"]
    torch._dynamo.reset()


@pytest.fixture
def config(tmp_path: Path) -> Callable[[str], str]:
    """The function that writes a config file and returns its path: config(text)."""

    def write(text: str) -> str:
        path = tmp_path / "recipe.yaml"
        path.write_text(text)
        return str(path)

    return write


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of stopwatches and progress displays, which only moves when told to."""
    clock = Clock()
    monkeypatch.setattr("time.perf_counter", clock)
    return clock


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory) -> Path:
    """An ImageFolder tree: 4 classes of a colour each, 16 training and 5 validation images of a class."""
    root = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(0)
    for split, count in (("train", 16), ("val", 5)):
        for label, name in enumerate(CLASSES):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                noise = random.integers(0, 60, (36, 44, 3))
                noise[..., label % 3] += 60 + 60 * (label // 3)
                Image.fromarray(noise.astype(np.uint8)).save(root / split / name / f"{number:03d}.jpg", quality=92)
    return root


@pytest.fixture
def train(image_folder, tmp_path, fresh_accelerate):
    """The function that trains in this process: train(*words, data=, output=); options given later win."""

    def run(*words: str, data: Path = image_folder, output: Path | None = None):
        accelerate_state.reset()
        return main([*TINY, "--data-dir", str(data), "--output", str(output or tmp_path / "run"), *words])

    return run


@pytest.fixture
def folder(tmp_path) -> Path:
    """The run folder of `train`."""
    return tmp_path / "run"


PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture
def no_wandb(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No key, proxy or W&B configuration of this machine."""
    monkeypatch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
    for name in (*PROXIES, *map(str.upper, PROXIES), "NETRC", "WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def wandb_server(monkeypatch: pytest.MonkeyPatch, no_wandb: None) -> Iterator[WandbServer]:
    """The W&B server that this machine is configured for."""
    with serve() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        yield server


@pytest.fixture
def save() -> Callable[..., Path]:
    """The function that writes one image: save(path, width, height, seed=, mode=, kind=)."""
    return save_image


@pytest.fixture(scope="session")
def split(tmp_path_factory: pytest.TempPathFactory) -> Index:
    """43 sound JPEG files of 3 classes."""
    return scan_folder(write_split(tmp_path_factory.mktemp("split"), count=43))


@pytest.fixture(scope="session")
def images() -> Images:
    """The bytes of every image of the small ImageNet by split and WNID/NAME; not to be changed."""
    return make_images()


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A folder of 8 sound JPEG files of 2 classes that a test may spoil."""
    return write_split(tmp_path / "small", count=8, classes=2)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Say what is missing: a GPU, or Triton's interpreter, which has to be chosen before Triton is imported."""
    if item.get_closest_marker("interpreter") and os.environ.get("TRITON_INTERPRET") != "1":
        pytest.skip("needs TRITON_INTERPRET=1")
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
