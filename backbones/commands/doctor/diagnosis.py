"""What the measurements of a recipe say: which side and which stage is the limit, and what to change first."""

from collections.abc import Iterator
from dataclasses import dataclass

from backbones.commands.doctor.measure import Measurements, Rate
from backbones.commands.doctor.versions import core_count
from backbones.recipe import Recipe

THRESHOLD = 0.05
"""Share of a step spent waiting for data from which on the input is the limit."""

IDLE = 0.5
"""Cores that must be idle before more threads are advised."""

RIVALRY = 0.9
"""Below this share of what the slower one does alone, loader and network are said to compete for cores."""

RESIZED = 384
"""Short side in pixels of the smaller images that are advised, or half as much again as the network takes."""


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
            f"note        loader and network compete for {core_count(machine.cores)}: together they reach "
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
    yield f"more cores: this process may use {core_count(machine.cores)}"


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
