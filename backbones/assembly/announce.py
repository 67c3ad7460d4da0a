"""Start and end messages of a run, and warnings about its settings."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from shlex import quote
from typing import Any, Literal

import torch

from backbones.assembly.batch_norm import images_of_batch_norm
from backbones.assembly.network import notes_on
from backbones.dataset.index import Index
from backbones.recipe import DEFAULT_EPOCHS, CompileMode, burn_in_steps, micro_batch
from backbones.training.compilation import choose_mode
from backbones.training.evaluate import Evaluation
from backbones.training.launch import launch_command
from backbones.training.loop import Run

_MIN_TIME_CONSTANTS = 10
"""Updates, in units of 1 / momentum, after which BatchNorm has forgotten its initial statistics."""
_MIN_BATCH_NORM_IMAGES = 8
"""Least number of images for a good estimate of a channel's statistics."""
_MAX_LOG_INTERVAL = 250
"""Steps between two rows up to which two looks at the fusion weights fall into the first 500 steps."""
_MAX_CFG_NOTES = 5
"""Notes on a cfg that are printed when a run starts."""
_COUNTER_TEXTS = {"data/replaced": ("bad images", "{} were replaced by others of their class")}
"""Label and text of the line about each counter of the loader."""

Changes = dict[str, tuple[Any, Any]]
"""Option -> its value in the checkpoint and now."""


def introduce(run: Run, folder: Path, train: Index, val: Index, changed: Changes, start: Sequence[str] = ()) -> None:
    """Print what a run is made of.

    Args:
        run: the run: its model and length are printed.
        folder: the run folder.
        train: training images.
        val: validation images.
        changed: options that changed since the checkpoint.
        start: remarks about the weights that a new run starts from.
    """
    if changed and run.report.tracker:
        run.report.tracker.event(run.step, "changed", "; ".join(_describe(changed)))
    notes = (("start", line) for line in start)
    for label, text in (*_facts(run, folder, train), *notes, *_remarks(run, train.notes + val.notes, changed)):
        run.report.say(label, text)


def _facts(run: Run, folder: Path, train: Index) -> Iterator[tuple[str, object]]:
    recipe, accelerator, steps = run.recipe, run.accelerator, run.train_batches.steps_per_epoch
    parameters = sum(parameter.numel() for parameter in run.model.parameters())
    each = micro_batch(recipe, accelerator.num_processes)
    shares = f"{accelerator.num_processes} processes x {each} x {recipe.grad_accum_steps} accumulated"
    left = len(train) - steps * recipe.batch_size
    tail = f"; {left} training images are left out of each epoch, others each time" if left else ""
    images = f"{len(train)} training and {run.val_batches.n} validation images in {len(train.classes)} classes"
    device = f"on {accelerator.device}, mixed precision {accelerator.mixed_precision}"
    burn_in = f"lr {recipe.lr} after {burn_in_steps(recipe, run.total_steps)} steps of burn-in"
    yield "run folder", folder
    yield "model", f"{recipe.model}, {parameters / 1e6:.2f} M parameters, {device}"
    yield "data", images + tail
    yield "batch", f"{recipe.batch_size} images per step = {shares} (BatchNorm sees {each})"
    if recipe.torchcompile:
        yield "compile", _describe_compilation(recipe.torchcompile, accelerator.device)
    yield "length", f"{run.total_steps} steps of {steps} per epoch, from step {run.step}; {burn_in}"


def _describe_compilation(asked: CompileMode | Literal[True], device: torch.device) -> str:
    mode = choose_mode(asked, device)
    instead = "" if mode == asked else f" ({asked} is for GPUs)"
    return f"torch.compile in mode {mode}{instead}: the evaluation now, the training in the first step"


def _remarks(run: Run, notes: tuple[str, ...], changed: Changes) -> Iterator[tuple[str, object]]:
    for note in (*notes, *_cfg_notes(run.recipe.model)):
        yield "note", note
    for change in _describe(changed):
        yield "changed", change
    for warning in find_bad_settings(run):
        yield "warning", warning


def _cfg_notes(model: str) -> list[str]:
    """Return what a cfg says without effect on the training."""
    notes = notes_on(model)
    rest = len(notes) - _MAX_CFG_NOTES
    more = [f"{rest} more such notes: `python -m backbones summary {quote(model)}` lists them"] if rest > 0 else []
    return [*notes[:_MAX_CFG_NOTES], *more]


def _describe(changed: Changes) -> list[str]:
    return [f"{option}: {before!r} -> {after!r}" for option, (before, after) in changed.items()]


def find_bad_settings(run: Run) -> Iterator[str]:
    """Yield a warning for each setting that makes this run worse without an error."""
    momentum, updates = run.recipe.optim.bn_momentum, run.total_steps
    updates *= 1 if run.recipe.optim.bn_batch else run.recipe.grad_accum_steps
    each = images_of_batch_norm(run.recipe, run.accelerator.num_processes)
    if momentum < 0.1 and updates * momentum < _MIN_TIME_CONSTANTS:
        yield (
            f"--bn-momentum {momentum} averages over about {1 / momentum:.0f} batches, which is long for a run of "
            f"{updates}: validation will lag behind. 0.1 suits short runs."
        )
    if each < _MIN_BATCH_NORM_IMAGES:
        yield (
            f"BatchNorm sees only {each} images at a time: its statistics are noisy. Use a larger --batch-size, fewer "
            "processes, a smaller --grad-accum-steps, or --sync-bn."
        )
    if run.recipe.health.monitors and run.recipe.log.interval > _MAX_LOG_INTERVAL:
        yield (
            f"--log.interval {run.recipe.log.interval} lets the monitors look as rarely as that, or at the ends of "
            f"epochs: a dead fusion input is named late. {_MAX_LOG_INTERVAL} or less names it within 500 steps."
        )


def conclude(run: Run, folder: Path, evaluation: Evaluation) -> None:
    """Print the result, the run folder and the commands to evaluate or resume."""
    recipe, name = run.recipe, quote(str(folder))
    longer = f"--steps {2 * recipe.steps}" if recipe.steps else f"--epochs {2 * (recipe.epochs or DEFAULT_EPOCHS)}"
    run.report.say("\nrun folder ", folder)
    run.report.say("result", evaluation)
    for counter, count in run.report.counters.items():
        label, text = _COUNTER_TEXTS.get(counter, (counter, "{}"))
        if count:
            run.report.say(label, text.format(count))
    run.report.say("evaluate", f"python eval.py --ckpt {name}")
    run.report.say("resume", f"{launch_command()} --resume {name} {longer}")
