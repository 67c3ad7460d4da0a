"""``python -m backbones doctor``: is the loader or the network the limit, which stage of it, and what to change.

Takes the options of train_imagenet.py and measures what they ask for, in one process, for about a minute and a half.
Nothing is trained or written. What it prints is what a report of a problem needs.
"""

import math
import os
import platform
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, cast

import torch

from backbones import canonical_name
from backbones.command_line import parse
from backbones.commands.assembly import build_model, build_run, splits, train_loader, val_loader
from backbones.commands.measure import SECONDS, Measurements, Rate, measure
from backbones.data.index import Index
from backbones.errors import UserError
from backbones.recipe import Recipe, differences, run_length
from backbones.training.launch import create_accelerator, precision_name

THRESHOLD = 0.05
"""Share of a step spent waiting for data from which on the input is the limit."""

IDLE = 0.5
"""Cores that must be idle before more threads are advised."""

RIVALRY = 0.9
"""Below this share of what the slower one does alone, loader and network are said to compete for cores."""

RESIZED = 384
"""Short side in pixels of the smaller images that are advised, or half as much again as the network takes."""

PACKAGES = ("torchvision", "timm", "accelerate", "wandb", "numpy", "pillow")
DALI = ("nvidia-dali-cuda120", "nvidia-dali-cuda130")
"""One of these is installed, with its own copy of CUDA."""
ABSENT = "not installed"

FOLDERS = ("data_dir", "output")
"""Options that are not shown among the differences from the defaults."""


@dataclass(frozen=True)
class Diagnosis:
    """What the measurements say."""

    input_bound: bool
    share: float
    """Share of a step that the limiting side takes: waiting for data, or the rest."""
    limit: str
    """The stage that takes longest on that side."""
    added: dict[str, float]
    """Seconds per image that each stage of the loader adds to those before it, and what the network takes alone."""
    step: dict[str, float]
    """Seconds per image of a training step by what they were spent on: waiting, in the proportions of ``added``, or
    the network. Their sum is the time of the step."""


@dataclass(frozen=True)
class Machine:
    """What the advice depends on besides the recipe."""

    cores: int
    """Cores that this process may use."""
    idle: float
    """Cores that were idle while the limiting stage was measured."""
    on_gpu: bool
    """The network is on a GPU."""
    has_gpu: bool
    """There is a GPU."""


def main(arguments: Sequence[str], *, seconds: float = SECONDS) -> None:
    """Measure the recipe of the command line, each stage for ``seconds``, and print what was found."""
    recipe = parse(Recipe, arguments, description=__doc__ or "")
    if recipe.resume:
        raise UserError("doctor resumes nothing: measure the recipe of that run with --config RUN/recipe.yaml.")
    for text in examine(replace(recipe, model=canonical_name(recipe.model)), seconds=seconds):
        sys.stdout.write(text.encode(errors="backslashreplace").decode() + "\n")  # data_dir need not be valid text
        sys.stdout.flush()


def examine(recipe: Recipe, *, seconds: float) -> Iterator[str]:
    """Yield the lines of the report, the ones about the machine before anything is measured.

    Args:
        recipe: what `train_imagenet.py` would train.
        seconds: length of each measurement.
    """
    accelerator = create_accelerator(
        precision=recipe.precision, device=recipe.device, grad_accum_steps=recipe.grad_accum_steps
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
    model = build_model(recipe, len(train.classes))
    run = build_run(recipe, accelerator, model, batches, save=cast("Any", None))  # nothing is saved
    measured = measure(run, recipe, seconds=seconds, tell=_tell)
    found = diagnose(measured)
    resolved = replace(recipe, precision=precision_name(accelerator))
    yield from ["", *table(measured, found)]
    yield from ["", *verdict(measured, found, resolved, _machine(measured, found, accelerator.device))]
    yield from _notes(measured, recipe, accelerator.device, steps_per_epoch=batches[0].steps_per_epoch)
    yield from estimates(measured.joint, recipe, len(train), batches[0].steps_per_epoch)


def diagnose(measured: Measurements) -> Diagnosis:
    """Tell which side is the limit, and which stage of it."""
    added = _added({stage: rate.per_image for stage, rate in measured.stages.items()})
    waited = measured.joint.waited / measured.joint.seconds
    input_bound = waited >= THRESHOLD
    per_image, loading = measured.joint.per_image, sum(added.values())
    step = {stage: waited * per_image * time / loading for stage, time in added.items()}
    return Diagnosis(
        input_bound,
        share=waited if input_bound else 1 - waited,
        limit=max(added, key=lambda stage: added[stage]) if input_bound else "model",
        added={**added, "model": measured.model.per_image},
        step={**step, "model": (1 - waited) * per_image},
    )


def _added(upto: dict[str, float]) -> dict[str, float]:
    """Return what each stage adds, never negative; the sum is the time of the last.

    No part takes longer than the whole: where it was measured so (a colder cache, a busier machine), it gets the time
    of the whole.
    """
    added, times = {}, list(upto.values())
    before = 0.0
    for number, stage in enumerate(upto):
        capped = min(times[number:])
        added[stage], before = capped - before, capped
    return added


def table(measured: Measurements, found: Diagnosis) -> list[str]:
    """Return the lines of the table: a stage each, in the order of the work."""
    plus = ["", *["+ "] * (len(measured.stages) - 1)]
    rows = [
        _row(sign + stage, rate, found.added[stage], found.step[stage] / measured.joint.per_image)
        for sign, (stage, rate) in zip(plus, measured.stages.items(), strict=True)
    ]
    share = found.step["model"] / measured.joint.per_image
    return [
        f"{'stage':<12}{'images/s':>10}{'ms/image':>10}{'of a step':>11}{'cores busy':>12}{'images/s/core':>15}",
        *rows,
        _row("model alone", measured.model, measured.model.per_image, share),
        _row("together", measured.joint, measured.joint.per_image, 1.0),
        "(+: that stage and those before it; ms/image: what it adds; copy: to the device, to floats, colours, mixing)",
    ]


def _row(title: str, rate: Rate, added: float, share: float) -> str:
    figures = f"{rate.per_second:>10.1f}{1000 * added:>10.3f}{share:>11.0%}{rate.cores:>12.1f}{rate.per_core:>15.1f}"
    return f"{title:<12}{figures}"


def verdict(measured: Measurements, found: Diagnosis, recipe: Recipe, machine: Machine) -> list[str]:
    """Return which side is the limit, what to change first, and what else might help."""
    if found.input_bound:
        said = f"INPUT-BOUND {found.share:.0%}: that share of each step waits for data. The limit is {found.limit}."
    else:
        said = f"COMPUTE-BOUND {found.share:.0%}: the limit is model. There is nothing to gain from the loader."
    change, *others = advice(found.limit, recipe, machine)
    lines = [f"verdict     {said}", f"change      {change}", *(f"or          {other}" for other in others)]
    slower = min(measured.model.per_second, measured.stages["copy"].per_second)
    if not machine.on_gpu and measured.joint.per_second < RIVALRY * slower:
        lines.append(
            f"note        loader and network compete for {_cores(machine.cores)}: together they reach "
            f"{measured.joint.per_second / slower:.0%} of what the slower one does alone"
        )
    return lines


def advice(limit: str, recipe: Recipe, machine: Machine) -> list[str]:
    """Return what would relieve the stage ``limit``, the best first: options with their present values."""
    return list({"read": _faster_read, "model": _faster_model}.get(limit, _faster_stage)(limit, recipe, machine))


def _faster_read(_limit: str, recipe: Recipe, machine: Machine) -> Iterator[str]:
    if machine.idle >= IDLE:
        now = recipe.loading.read_threads
        yield f"--read-threads {2 * now} (now {now}), while reads wait for the disk or the network"
    yield _resize(recipe)
    yield "a faster disk: a local SSD rather than a network drive"


def _faster_stage(limit: str, recipe: Recipe, machine: Machine) -> Iterator[str]:
    """Yield what helps the stages of the loader that compute."""
    if limit == "make":
        yield "--loader dali --data-dir DIR (now synthetic): made-up images say little about the loading of files"
        return
    if limit == "copy":
        yield from _faster_copy(recipe, machine)
        return
    if recipe.loader == "reference":
        yield "--loader dali (now reference), which is made for speed"
        return
    auto = recipe.augment.inception.auto
    if limit == "augment" and auto != "none":
        yield f"--auto none (now {auto}), which changes what is learned"
    if machine.idle >= IDLE and recipe.workers < machine.cores:
        yield f"--workers {machine.cores} (now {recipe.workers}), since {machine.idle:.1f} cores are idle"
    if limit == "decode" and machine.on_gpu and recipe.loading.hw_decoder_load < 0.9:
        yield f"--hw-decoder-load 0.9 (now {recipe.loading.hw_decoder_load}), where the GPU has a hardware decoder"
    if limit == "decode":
        yield _resize(recipe)
    yield f"more cores: this process may use {_cores(machine.cores)}"


def _faster_copy(recipe: Recipe, machine: Machine) -> Iterator[str]:
    if recipe.augment.darknet.hsv == "exact":
        yield "--hsv matrix (now exact), nearly the same colours at a fraction of the cost"
    if recipe.mixing.blur:
        yield f"--blur 0 (now {recipe.mixing.blur}), which changes what is learned"
    if machine.on_gpu:
        yield f"--prefetch {2 * recipe.loading.prefetch} (now {recipe.loading.prefetch}), so that copies wait less"
    elif machine.has_gpu:
        yield f"--device auto (now {recipe.device}): the GPU makes floats and mixes"
    else:
        yield "a GPU: it makes floats, changes colours and mixes at no cost to the cores"


def _faster_model(_limit: str, recipe: Recipe, machine: Machine) -> Iterator[str]:
    if machine.has_gpu and not machine.on_gpu:
        yield f"--device auto (now {recipe.device}): there is a GPU"
    if machine.on_gpu and recipe.precision == "fp32":
        yield "--precision bf16 (now fp32)"
    if not recipe.channels_last:
        yield "--channels-last (now off)"
    if recipe.grad_checkpointing:
        yield "--no-grad-checkpointing (now on), if the memory suffices"
    if not recipe.torchcompile:
        yield "--torchcompile (now off)"
    if recipe.grad_accum_steps > 1:
        yield f"--grad-accum-steps 1 (now {recipe.grad_accum_steps}): larger micro-batches, which BatchNorm sees too"
    elif machine.on_gpu:
        yield f"--batch-size {2 * recipe.batch_size} (now {recipe.batch_size}), which changes what is learned"
    yield "more GPUs" if machine.on_gpu else "more cores, or a GPU"


def _resize(recipe: Recipe) -> str:
    size = max(RESIZED, recipe.img_size * 3 // 2)
    source = recipe.data_dir or "DIR"
    return f"python -m backbones prepare {source} --resize {size} --out INDEX, once: smaller files with fewer pixels"


def estimates(rate: Rate, recipe: Recipe, size: int, steps_per_epoch: int) -> list[str]:
    """Return how long an epoch and the run take at ``rate``, validation not counted."""
    steps = run_length(recipe, steps_per_epoch)
    epoch, whole = (_duration(count * recipe.batch_size / rate.per_second) for count in (steps_per_epoch, steps))
    return [
        f"one epoch   takes {epoch} at {rate.per_second:.1f} images/s ({size} images in one process)",
        f"whole run   takes {whole} ({steps} steps), validation not counted",
    ]


def _notes(measured: Measurements, recipe: Recipe, device: torch.device, *, steps_per_epoch: int) -> Iterator[str]:
    """Yield what limits the worth of the figures."""
    if recipe.loader != "synthetic":
        again = measured.steps > steps_per_epoch
        cached = "more than there are, so most came from memory" if again else "some perhaps from the page cache"
        yield f"note        {measured.steps * recipe.batch_size} images were read, {cached} and not from the disk"
    if device.type == "cuda" and torch.cuda.device_count() > 1:
        yield f"note        one process of up to {torch.cuda.device_count()}: they will share cores and disk"


def _settings(recipe: Recipe, train: Index, *, precision: str) -> Iterator[str]:
    """Yield the data set, the batch, and every option that is not the default."""
    where = recipe.data_dir if recipe.loader != "synthetic" else "made up"
    size = f", {train.lengths.mean() / 1000:.0f} kB each on average" if recipe.loader != "synthetic" else ""
    yield f"data        {where}: {len(train)} training images in {len(train.classes)} classes{size}"
    each = recipe.batch_size // recipe.grad_accum_steps
    yield f"batch       {recipe.batch_size} images per step, {each} at a time, precision {precision}"
    changed = differences(Recipe().to_dict(), recipe.to_dict()).items()
    shown = [f"{name}={_without_folder(new)}" for name, (_, new) in changed if name not in FOLDERS]
    yield f"recipe      {' '.join(shown) or 'the defaults'}"


def _without_folder(value: object) -> object:
    """Shorten the path of a cfg file to its name: folders are nobody's business."""
    return Path(value).name if isinstance(value, str) else value


def versions() -> list[str]:
    """Return the versions and the machine: no paths, names of people or variables of the environment."""
    cuda = f"CUDA runtime {torch.version.cuda}" if torch.version.cuda else "without CUDA"
    gpus = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    return [
        f"backbones   {_version('backbones')}, python {platform.python_version()}",
        f"packages    torch {torch.__version__} ({cuda}), {', '.join(_packages())}",
        f"cpu         {_cpu()}, {usable_cores()} of {_cores(os.cpu_count() or 1)} usable, "
        f"{torch.get_num_threads()} threads of torch",
        f"gpu         {', '.join(gpus) or 'none'}, driver {_driver()}",
        f"system      {platform.platform()}",
    ]


def _packages() -> Iterator[str]:
    for name in PACKAGES:
        yield f"{name} {_version(name)}"
    yield from [f"{name} {_version(name)}" for name in DALI if _version(name) != ABSENT] or [f"DALI {ABSENT}"]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ABSENT


def usable_cores() -> int:
    """Return the cores that this process may use: its affinity, or the quota of its container where that is less."""
    cores = len(os.sched_getaffinity(0))
    return min(cores, quota(_text("/sys/fs/cgroup/cpu.max")) or cores)


def quota(cpu_max: str) -> int | None:
    """Return the cores that cgroup v2's cpu.max ("QUOTA PERIOD", in microseconds) allows; None: it sets no limit."""
    match = re.match(r"(\d+) (\d+)", cpu_max)
    return max(1, math.ceil(int(match[1]) / int(match[2]))) if match else None


def _cpu() -> str:
    named = re.search(r"^model name\s*: (.+)$", _text("/proc/cpuinfo"), re.MULTILINE)
    return named[1] if named else platform.machine()


def _driver() -> str:
    """Return the version of NVIDIA's kernel driver; the number alone, since who built it stands there, too."""
    number = re.search(r"\d+\.\d+(\.\d+)?", _text("/proc/driver/nvidia/version"))
    return number[0] if number else "none"


def _text(file: str) -> str:
    try:
        return Path(file).read_text()
    except OSError:
        return ""


def _machine(measured: Measurements, found: Diagnosis, device: torch.device) -> Machine:
    rate = measured.stages.get(found.limit, measured.model)
    cores = usable_cores()
    return Machine(cores, max(0.0, cores - rate.cores), device.type == "cuda", torch.cuda.is_available())


def _cores(count: int) -> str:
    return f"{count} core{'s' if count != 1 else ''}"


def _duration(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


def _tell(stage: str) -> None:
    """Say on the terminal what is being measured, apart from the report."""
    sys.stderr.write(f"measuring   {stage}\n")
