"""What a run says at its start and at its end, and what it warns of before it costs a week."""

from pathlib import Path
from shlex import quote
from typing import Any

from backbones.recipe import Recipe, burn_in_steps, micro_batch
from backbones.training.evaluate import Evaluation
from backbones.training.launch import command_line
from backbones.training.loop import Run

_TIME_CONSTANTS = 10
"""Updates, in units of 1 / momentum, after which BatchNorm has forgotten its initial statistics."""
_NOISY_BATCH = 8
"""Fewer images than this make a poor estimate of a channel's statistics."""


def introduce(
    run: Run,
    recipe: Recipe,
    folder: Path,
    changed: dict[str, tuple[Any, Any]],
    *,
    train_size: int,
    classes: int,
    notes: tuple[str, ...] = (),
) -> None:
    """Say what is about to be trained, on what, where it goes, and what ``changed`` since the checkpoint.

    ``notes`` are what the user should know about the data set.
    """
    steps = run.train_batches.steps_per_epoch
    processes, accumulated = run.accelerator.num_processes, recipe.grad_accum_steps
    left = train_size - steps * recipe.batch_size
    parameters = sum(parameter.numel() for parameter in run.model.parameters())
    each = micro_batch(recipe, processes)
    lines = (
        f"run folder  {folder}",
        f"model       {recipe.model}, {parameters / 1e6:.2f} M parameters, on {run.accelerator.device}, "
        f"mixed precision {run.accelerator.mixed_precision}",
        f"data        {train_size} training and {run.val_size} validation images in {classes} classes{_tail(left)}",
        f"batch       {recipe.batch_size} images per step = {processes} processes x {each} x {accumulated} accumulated "
        f"(BatchNorm sees {each})",
        f"length      {run.total_steps} steps of {steps} per epoch, from step {run.step}; "
        f"lr {recipe.lr} after {burn_in_steps(recipe, run.total_steps)} steps of burn-in",
    )
    changes = [f"changed     {option}: {before!r} -> {after!r}" for option, (before, after) in changed.items()]
    remarks = [f"note        {note}" for note in notes]
    for line in (*lines, *remarks, *changes, *warnings_of(run, recipe)):
        run.progress.print(line)


def _tail(images: int) -> str:
    return f"; {images} training images are left out of each epoch, others each time" if images else ""


def warnings_of(run: Run, recipe: Recipe) -> list[str]:
    """Return a line for each setting that would quietly spoil this run."""
    momentum, updates = recipe.optim.bn_momentum, run.total_steps * recipe.grad_accum_steps
    each = micro_batch(recipe, run.accelerator.num_processes)
    warnings = []
    if momentum < 0.1 and updates * momentum < _TIME_CONSTANTS:
        warnings.append(
            f"--bn-momentum {momentum} averages over about {1 / momentum:.0f} batches, which is long for a run of "
            f"{updates}: validation will lag behind. 0.1 suits short runs."
        )
    if each < _NOISY_BATCH:
        warnings.append(
            f"BatchNorm sees only {each} images at a time: its statistics are noisy. Use a larger --batch-size, fewer "
            "processes or a smaller --grad-accum-steps."
        )
    return [f"warning     {warning}" for warning in warnings]


def conclude(run: Run, recipe: Recipe, folder: Path, evaluation: Evaluation) -> None:
    """Say what came out, where it is, and how to go on."""
    longer = f"--steps {2 * recipe.steps}" if recipe.steps else f"--epochs {2 * (recipe.epochs or 120)}"
    run.progress.print(f"\nrun folder  {folder}\nresult      {evaluation}")
    if run.replaced:
        run.progress.print(f"bad images  {run.replaced} were replaced by others of their class")
    run.progress.print(f"evaluate    python eval.py --ckpt {quote(str(folder))}")
    run.progress.print(f"resume      {command_line()} --resume {quote(str(folder))} {longer}")
