"""The doctor names the side and the stage that is made slow on purpose, and tells nothing private."""

import re
import shutil
import sys
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from backbones.commands.doctor import command
from backbones.commands.doctor.command import estimates
from backbones.commands.doctor.measure import Measurements, Rate
from backbones.commands.doctor.options import read_options
from backbones.commands.doctor.versions import version_of
from backbones.data import reference
from backbones.data.augment.finish import Finish
from backbones.data.reading.reader import Reader
from backbones.errors import UserError
from backbones.recipe import Recipe

pytestmark = pytest.mark.usefixtures("fresh_accelerate")

SECONDS = 0.15
SLOW = 0.04
"""Seconds that a throttled stage takes for each batch: many times what 8 images of 32 pixels need."""

WORDS = ["--model", "test_resnet", "--img-size", "32", "--batch-size", "8", "--epochs", "2", "--device", "cpu"]
MADE_UP = ["--synthetic.classes", "3", "--train-per-class", "9", "--val-per-class", "4"]
MEASURED = Measurements({"copy": Rate(8, 1)}, model=Rate(8, 1), joint=Rate(8, 1, waited=0.5), steps=1)


def report(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    command.run(read_options([*WORDS, *words]), seconds=SECONDS)
    return capsys.readouterr().out


def line(text: str, title: str) -> str:
    return next(each for each in text.splitlines() if each.startswith(title))


def slowed(function: Callable[..., Any], seconds: float = SLOW) -> Callable[..., Any]:
    def slow(*arguments: Any, **options: Any) -> Any:
        time.sleep(seconds)
        return function(*arguments, **options)

    return slow


def test_dali_is_measured_stage_by_stage_and_nothing_is_written(image_folder, tmp_path, monkeypatch, capsys):
    pytest.importorskip("nvidia.dali")
    monkeypatch.chdir(tmp_path)
    files = sorted(image_folder.rglob("*"))
    text = report(capsys, "--data-dir", str(image_folder), "--log-wandb", "--grad-accum-steps", "2")
    for title in ("read ", "+ decode ", "+ augment ", "+ copy ", "model alone ", "together "):
        assert float(line(text, title).removeprefix(title).split()[0]) > 0
    assert re.search(r"^verdict +(INPUT|COMPUTE)-BOUND \d+%", text, re.MULTILINE)
    assert line(text, "decoding ").endswith(" images have the pixels that PIL decodes, up to rounding")
    assert "8 images per step, 4 at a time, precision fp32" in text
    assert list(tmp_path.iterdir()) == []
    assert sorted(image_folder.rglob("*")) == files


THROTTLES = {
    "read": [(Reader, "read")],
    "decode": [(reference, "decode")],
    "augment": [(reference, "transform")],
    "copy": [(Finish, "__call__")],
}


@pytest.mark.parametrize("stage", THROTTLES)
def test_a_slow_stage_of_the_loader_is_found(stage, image_folder, monkeypatch, capsys):
    for owner, name in THROTTLES[stage]:
        monkeypatch.setattr(owner, name, slowed(getattr(owner, name)))
    words = ["--batch-size", "2"] if stage == "decode" else []  # the decoder sleeps for each image
    text = report(capsys, "--data-dir", str(image_folder), "--loader", "reference", *words)
    said = re.search(r"INPUT-BOUND (\d+)%.* The limit is (\w+)", text)
    assert said is not None
    assert said[2] == stage
    assert 30 < int(said[1]) <= 100


def test_a_slow_network_is_found_and_the_loader_is_left_alone(monkeypatch, capsys):
    monkeypatch.setattr(F, "cross_entropy", slowed(F.cross_entropy, 5 * SLOW))  # a busy machine delays batches
    text = report(capsys, "--loader", "synthetic", *MADE_UP)
    said = re.search(r"COMPUTE-BOUND (\d+)%: the limit is model. There is nothing to gain from the loader", text)
    assert said is not None
    assert 80 < int(said[1]) <= 100
    assert "change      --torchcompile (now off)" in text
    assert float(line(text, "make ").split()[1]) > float(line(text, "model alone").split()[2])


def test_the_versions_are_listed_but_no_secret_and_no_folder(image_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("WANDB_API_KEY", "very-secret")
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.setattr(command, "measure", lambda *_, **__: MEASURED)
    text = report(capsys, "--data-dir", str(image_folder), "--output", str(tmp_path / "run"), "--hsv", "exact")
    for package in ("torch", "torchvision", "timm", "accelerate", "wandb", "numpy", "pillow"):
        found = version_of(package) if package != "torch" else torch.__version__
        assert f"{package} {found}" in text
    assert re.search(r"nvidia-dali-cuda1[23]0 \d|DALI not installed", text)
    assert f"python {sys.version.split()[0]}" in text
    assert "augment.darknet.hsv=exact batch_size=8" in text
    assert "output" not in text
    assert not any(private in text for private in ("very-secret", "somebody", str(tmp_path), sys.prefix))
    assert f"data        {image_folder}: 64 training images in 4 classes" in text


def test_an_epoch_and_the_run_last_as_long_as_their_images():
    lines = estimates(Rate(images=500, seconds=10), Recipe(batch_size=10, epochs=90), 1009, 100)
    assert "one epoch   takes 0:00:20 at 50.0 images/s (1009 images" in lines[0]
    assert "whole run   takes 0:30:00 (9000 steps)" in lines[1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data-dir", "/nowhere"], "/nowhere is not a folder"),
        ([], "--data-dir is missing"),
        (["--loader", "synthetic", *MADE_UP, "--batch-size", "28"], "batch_size=28 is larger than the data set of 27"),
        (["--loader", "synthetic", "--resume", "runs/a"], "doctor resumes nothing"),
        (["--loader", "synthetic", *MADE_UP, "--model", "test_resnot"], "unknown model 'test_resnot'"),
    ],
)
def test_what_would_stop_the_training_stops_the_doctor(words, message):
    with pytest.raises(UserError, match=message):
        command.run(read_options([*WORDS, *words]), seconds=SECONDS)


@pytest.mark.parametrize("loader", ["dali", "reference"])
def test_a_bad_image_is_named(loader, image_folder, tmp_path):
    pytest.importorskip("nvidia.dali")
    shutil.copytree(image_folder, tmp_path / "data")
    for file in sorted((tmp_path / "data" / "train").rglob("*.jpg")):
        data = bytearray(file.read_bytes())
        data[2:20] = bytes(18)
        file.write_bytes(data)
    with pytest.raises(UserError, match=r"train/.*\.jpg cannot be decoded"):
        command.run(read_options([*WORDS, "--data-dir", str(tmp_path / "data"), "--loader", loader]), seconds=SECONDS)


def test_one_process_is_enough(monkeypatch):
    monkeypatch.setattr(command, "create_accelerator", lambda **_: SimpleNamespace(num_processes=2))
    with pytest.raises(UserError, match="doctor measures one process"):
        command.run(Recipe(loader="synthetic"), seconds=SECONDS)
