"""What is said at the start and the end is true."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from backbones.assembly.announce import conclude, find_bad_settings, introduce
from backbones.recipe import Health, Log, Optim, Recipe
from backbones.training.evaluate import Evaluation


def run_of(steps: int, recipe: Recipe, lines: list[str]) -> Any:
    """As much of a Run as announcing needs."""
    model = SimpleNamespace(parameters=lambda: [SimpleNamespace(numel=lambda: 2_500_000)])
    accelerator = SimpleNamespace(num_processes=2, device=torch.device("cpu"), mixed_precision="no")
    return SimpleNamespace(
        model=model,
        accelerator=accelerator,
        recipe=recipe,
        train_batches=SimpleNamespace(steps_per_epoch=10),
        val_batches=SimpleNamespace(n=50),
        total_steps=steps,
        step=0,
        report=SimpleNamespace(
            say=lambda label, text: lines.append(f"{label}: {text}"), counters={"data/replaced": 3}, tracker=None
        ),
    )


class Split(tuple):
    """As much of an Index as announcing needs."""

    classes = ("a",) * 7
    notes: tuple[str, ...] = ()


def introduced(recipe: Recipe, folder: Path, *, train_size: int, notes: tuple[str, ...] = ()) -> str:
    lines: list[str] = []
    train: Any = Split(range(train_size))
    train.notes = notes
    introduce(run_of(1200, recipe, lines), folder, train, Split(), {"lr": (0.1, 0.2)})  # type: ignore[arg-type]
    return "\n".join(lines)


def test_the_introduction_shows_how_the_batch_is_shared(tmp_path):
    recipe = Recipe(batch_size=32, grad_accum_steps=4, optim=Optim(bn_momentum=0.1))
    text = introduced(recipe, tmp_path, train_size=325)
    assert text.startswith(f"run folder: {tmp_path}\n")
    assert "2.50 M parameters" in text
    assert "325 training and 50 validation images in 7 classes; 5 training images are left out" in text
    assert "32 images per step = 2 processes x 4 x 4 accumulated (BatchNorm sees 4)" in text
    assert "1200 steps of 10 per epoch, from step 0; lr 0.1 after 120 steps of burn-in" in text
    assert "changed: lr: 0.1 -> 0.2" in text


def test_what_a_cfg_says_without_effect_is_said_at_the_start(tmp_path):
    once = "[convolutional]\nfilters=2\nsize=1\nstride=1\nactivation=linear\nlearning_rate=0.5\n"
    cfg = tmp_path / "x.cfg"
    cfg.write_text("[net]\nheight=8\nwidth=8\nchannels=3\n" + once * 7 + "[avgpool]\n")
    text = introduced(Recipe(model=str(cfg)), tmp_path, train_size=320)
    assert text.count("learning_rate=0.5 has no effect here: ") == 5
    assert "note: 2 more such notes: `python -m backbones summary" in text


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (True, "compile: torch.compile in mode default: the evaluation now, the training in the first step"),
        ("reduce-overhead", "compile: torch.compile in mode default (reduce-overhead is for GPUs): the evaluation now"),
    ],
)
def test_the_mode_of_compilation_is_said_and_what_it_is_without_a_gpu(tmp_path, asked, said):
    assert said in introduced(Recipe(torchcompile=asked), tmp_path, train_size=325)


def test_a_run_that_is_not_compiled_says_nothing_of_it(tmp_path):
    assert "torch.compile" not in introduced(Recipe(), tmp_path, train_size=325)


def test_a_tail_is_mentioned_only_where_there_is_one(tmp_path):
    assert "left out" not in introduced(Recipe(batch_size=32), tmp_path, train_size=320)


def test_notes_about_the_data_set_are_printed(tmp_path):
    assert "note: links" in introduced(Recipe(batch_size=32), tmp_path, train_size=320, notes=("links",)).splitlines()


def test_the_end_says_what_was_counted_and_how_to_go_on(tmp_path):
    lines: list[str] = []
    folder = tmp_path / "a run"
    conclude(run_of(100, Recipe(epochs=30), lines), folder, Evaluation(top1=97.5, top5=100.0, loss=0.1, n=360))
    assert "bad images: 3 were replaced by others of their class" in lines
    assert lines[-1].endswith(f"--resume '{folder}' --epochs 60")


@pytest.mark.parametrize(
    ("steps", "momentum", "batch", "warned"),
    [
        (300, 0.01, 128, ["averages over about 100 batches"]),
        (300, 0.1, 128, []),
        (5000, 0.01, 128, []),
        (300, 0.1, 8, ["BatchNorm sees only 4"]),
    ],
)
def test_what_would_spoil_a_run_quietly_is_said(steps, momentum, batch, warned):
    recipe = Recipe(batch_size=batch, optim=Optim(bn_momentum=momentum))
    warnings = list(find_bad_settings(run_of(steps, recipe, [])))
    assert len(warnings) == len(warned)
    assert all(text in warning for text, warning in zip(warned, warnings, strict=True))


@pytest.mark.parametrize(("interval", "monitors", "warned"), [(250, True, 0), (251, True, 1), (1000, False, 0)])
def test_rows_so_rare_that_monitors_are_late_are_warned_of(interval, monitors, warned):
    recipe = Recipe(batch_size=128, log=Log(interval=interval), health=Health(monitors=monitors))
    warnings = list(find_bad_settings(run_of(100_000, recipe, [])))
    assert len(warnings) == warned
    assert all(warning.startswith("--log.interval 251 lets the monitors look as rarely") for warning in warnings)


def test_figures_read_as_a_line():
    line = str(Evaluation(top1=97.5, top5=100.0, loss=0.1234, n=360))
    assert line == "top-1 97.500 %  top-5 100.000 %  loss 0.1234  n 360"
