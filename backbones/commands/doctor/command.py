"""The report of `doctor` about one recipe on this machine."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import torch

from backbones.assembly.run import build_model, build_run, splits, train_loader, val_loader
from backbones.commands.doctor.diagnosis import Diagnosis, Machine, diagnose, stage_table, verdict
from backbones.commands.doctor.measure import MEASUREMENT_SECONDS, Measurements, Rate, measure
from backbones.commands.doctor.versions import versions
from backbones.dataset.index import Index
from backbones.dataset.workers import usable_cores
from backbones.errors import UserError
from backbones.recipe import Recipe, differences, micro_batch, run_length
from backbones.terminal import write
from backbones.training.launch import create_accelerator, precision_name
from backbones.training.loop import NoCheckpoints

DECODED_IMAGES = 256
"""Images whose decoding is compared with PIL's."""

PRIVATE_OPTIONS = ("data_dir", "output")
"""Options with folders, which are not shown among the differences from the defaults."""


def run(recipe: Recipe, *, seconds: float = MEASUREMENT_SECONDS) -> None:
    """Measure the recipe, each stage for ``seconds``, and print the report."""
    for text in examine(recipe, seconds=seconds):
        write(text)


def examine(recipe: Recipe, *, seconds: float) -> Iterator[str]:
    """Yield the lines of the report; those about the machine come before the measurements.

    Args:
        recipe: recipe for `train_imagenet.py`.
        seconds: length of each measurement.
    """
    accelerator = create_accelerator(
        precision=recipe.precision,
        device=recipe.device,
        grad_accum_steps=recipe.grad_accum_steps,
        tf32=recipe.tf32,
    )
    if accelerator.num_processes > 1:
        raise UserError(
            "doctor measures one process: start it without accelerate launch, and with --batch-size divided by the "
            "number of processes."
        )
    yield from versions()
    train, val = splits(recipe)
    yield from _settings(recipe, train, precision=precision_name(accelerator))
    batches = train_loader(recipe, train, accelerator), val_loader(recipe, val, accelerator)
    if compared := batches[0].check_decoding(DECODED_IMAGES):
        yield f"decoding    {compared} images have the pixels that PIL decodes, up to rounding"
    model = build_model(recipe, len(train.classes))
    run = build_run(recipe, accelerator, model, batches, checkpoints=NoCheckpoints())
    measured = measure(run, recipe, seconds=seconds, tell=_tell)
    found = diagnose(measured)
    resolved = replace(recipe, precision=precision_name(accelerator))
    yield from ["", stage_table(measured, found)]
    yield from ["", *verdict(measured, found, resolved, _machine(measured, found, accelerator.device))]
    yield from _notes(measured, recipe, accelerator.device, steps_per_epoch=batches[0].steps_per_epoch)
    yield from estimates(measured.joint, recipe, len(train), batches[0].steps_per_epoch)


def _settings(recipe: Recipe, train: Index, *, precision: str) -> Iterator[str]:
    """Yield the data set, the batch, and every option that is not the default."""
    where = recipe.data_dir if recipe.loader != "synthetic" else "made up"
    size = f", {train.lengths.mean() / 1000:.0f} kB each on average" if recipe.loader != "synthetic" else ""
    yield f"data        {where}: {len(train)} training images in {len(train.classes)} classes{size}"
    yield f"batch       {recipe.batch_size} images per step, {micro_batch(recipe, 1)} at a time, precision {precision}"
    changed = differences(Recipe().to_dict(), recipe.to_dict()).items()
    shown = [f"{name}={_without_folder(new)}" for name, (_, new) in changed if name not in PRIVATE_OPTIONS]
    yield f"recipe      {' '.join(shown) or 'the defaults'}"


def _without_folder(value: object) -> object:
    """Shorten the path of a cfg file to its name, since folders are private."""
    return Path(value).name if isinstance(value, str) else value


def _machine(measured: Measurements, found: Diagnosis, device: torch.device) -> Machine:
    rate = measured.stages.get(found.limit, measured.model)
    cores = usable_cores()
    return Machine(cores, max(0.0, cores - rate.cores), device.type == "cuda", torch.cuda.is_available())


def _notes(measured: Measurements, recipe: Recipe, device: torch.device, *, steps_per_epoch: int) -> Iterator[str]:
    """Yield reasons why the figures may be too good."""
    if recipe.loader != "synthetic":
        again = measured.steps > steps_per_epoch
        cached = "more than there are, so most came from memory" if again else "some perhaps from the page cache"
        yield f"note        {measured.steps * recipe.batch_size} images were read, {cached} and not from the disk"
    if device.type == "cuda" and torch.cuda.device_count() > 1:
        yield f"note        one process of up to {torch.cuda.device_count()}: they will share cores and disk"


def estimates(rate: Rate, recipe: Recipe, size: int, steps_per_epoch: int) -> list[str]:
    """Return lines with the time of an epoch and of the run at ``rate``, without validation."""
    steps = run_length(recipe, steps_per_epoch)
    epoch, whole = (
        timedelta(seconds=round(count * recipe.batch_size / rate.per_second)) for count in (steps_per_epoch, steps)
    )
    return [
        f"one epoch   takes {epoch} at {rate.per_second:.1f} images/s ({size} images in one process)",
        f"whole run   takes {whole} ({steps} steps), validation not counted",
    ]


def _tell(stage: str) -> None:
    """Print the stage that is measured on stderr, apart from the report."""
    sys.stderr.write(f"measuring   {stage}\n")
