"""What is said at the start and the end is true."""

from types import SimpleNamespace

import pytest

from backbones.recipe import Optim, Recipe
from backbones.training.announce import introduce, warnings_of
from backbones.training.evaluate import Evaluation


def run_of(steps: int, lines: list[str]) -> SimpleNamespace:
    """As much of a Run as announcing needs."""
    model = SimpleNamespace(parameters=lambda: [SimpleNamespace(numel=lambda: 2_500_000)])
    accelerator = SimpleNamespace(num_processes=2, device="cpu", mixed_precision="no")
    return SimpleNamespace(
        model=model,
        accelerator=accelerator,
        train_batches=SimpleNamespace(steps_per_epoch=10),
        val_size=50,
        total_steps=steps,
        step=0,
        progress=SimpleNamespace(print=lines.append),
    )


def test_the_introduction_shows_how_the_batch_is_shared(tmp_path):
    lines: list[str] = []
    recipe = Recipe(batch_size=32, grad_accum_steps=4, optim=Optim(bn_momentum=0.1))
    introduce(run_of(1200, lines), recipe, tmp_path, {"lr": (0.1, 0.2)}, train_size=325, classes=7)  # type: ignore[arg-type]
    text = "\n".join(lines)
    assert lines[0] == f"run folder  {tmp_path}"
    assert "2.50 M parameters" in text
    assert "325 training and 50 validation images in 7 classes; 5 training images are left out" in text
    assert "32 images per step = 2 processes x 4 x 4 accumulated (BatchNorm sees 4)" in text
    assert "1200 steps of 10 per epoch, from step 0; lr 0.1 after 120 steps of burn-in" in text
    assert "changed     lr: 0.1 -> 0.2" in text


def test_a_tail_is_mentioned_only_where_there_is_one(tmp_path):
    lines: list[str] = []
    introduce(run_of(100, lines), Recipe(batch_size=32), tmp_path, {}, train_size=320, classes=7)  # type: ignore[arg-type]
    assert "left out" not in "\n".join(lines)


def test_notes_about_the_data_set_are_printed(tmp_path):
    lines: list[str] = []
    introduce(run_of(100, lines), Recipe(batch_size=32), tmp_path, {}, train_size=320, classes=7, notes=("links",))  # type: ignore[arg-type]
    assert "note        links" in lines


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
    warnings = warnings_of(run_of(steps, []), recipe)  # type: ignore[arg-type]
    assert len(warnings) == len(warned)
    assert all(text in warning for text, warning in zip(warned, warnings, strict=True))


def test_figures_read_as_a_line():
    line = str(Evaluation(top1=97.5, top5=100.0, loss=0.1234, n=360))
    assert line == "top-1 97.500 %  top-5 100.000 %  loss 0.1234  n 360"
