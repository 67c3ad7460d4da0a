"""Diagnosis from measurements: which side and which stage is the limit, and what to change first."""

from collections.abc import Iterator
from dataclasses import dataclass

from backbones.commands.doctor.measure import Measurements, Rate
from backbones.commands.doctor.versions import core_count
from backbones.recipe import Recipe
from backbones.terminal import table

MIN_WAITING = 0.05
"""Share of a step spent waiting for data from which on the input is the limit."""

MIN_IDLE_CORES = 0.5
"""Idle cores from which on more threads are advised."""

MIN_JOINT_SPEED = 0.9
"""Speed of loader and network together / speed of the slower one alone, below which they compete for cores."""

HIGH_DECODER_LOAD = 0.9
"""Share of the files for the hardware decoder that is advised where it has less."""

MIN_SHORT_SIDE = 384
"""Least short side in pixels of the smaller images that the advice names."""


HEADING = ("stage", "images/s", "ms/image", "of a step", "cores busy", "images/s/core")
LEGEND = "(+: that stage and those before it; ms/image: what it adds; copy: to the device, to floats, colours, mixing)"


@dataclass(frozen=True)
class Diagnosis:
    """The limit, and the time of each stage."""

    input_bound: bool
    """True when the loader is the limit, False when the network is."""
    share: float
    """Share of a step that the limiting side takes: the time of waiting for data, or the rest."""
    limit: str
    """Slowest stage of that side."""
    added: dict[str, float]
    """Seconds per image that each stage of the loader adds to the stages before it; for "model", the network alone."""
    step: dict[str, float]
    """Seconds per image of a training step: the time of waiting, divided among the stages in proportion to ``added``,
    and the rest for "model"."""


@dataclass(frozen=True)
class Machine:
    """Facts that the advice depends on, besides the recipe."""

    cores: int
    """Cores that this process may use."""
    idle: float
    """Cores that were idle while the limiting stage was measured."""
    on_gpu: bool
    """The network is on a GPU."""
    has_gpu: bool
    """The machine has a GPU."""


def diagnose(measured: Measurements) -> Diagnosis:
    """Find the side and the stage that are the limit."""
    added = _compute_added({stage: rate.per_image for stage, rate in measured.stages.items()})
    waited = measured.joint.waited / measured.joint.seconds
    input_bound = waited >= MIN_WAITING
    per_image, loading = measured.joint.per_image, sum(added.values())
    step = {stage: waited * per_image * time / loading for stage, time in added.items()}
    return Diagnosis(
        input_bound,
        share=waited if input_bound else 1 - waited,
        limit=max(added, key=lambda stage: added[stage]) if input_bound else "model",
        added={**added, "model": measured.model.per_image},
        step={**step, "model": (1 - waited) * per_image},
    )


def _compute_added(upto: dict[str, float]) -> dict[str, float]:
    """Return the seconds that each stage adds, never negative; their sum is the time up to the last stage.

    Where fewer stages took longer than more of them (a colder cache, a busier machine), they get the shorter time.
    """
    added, times, before = {}, list(upto.values()), 0.0
    for number, stage in enumerate(upto):
        capped = min(times[number:])
        added[stage], before = capped - before, capped
    return added


def stage_table(measured: Measurements, found: Diagnosis) -> str:
    """Return the table of stages, in the order of the work."""
    whole = measured.joint.per_image
    plus = ["", *["+ "] * (len(measured.stages) - 1)]
    rows = [
        _format_cells(sign + stage, rate, found.added[stage], found.step[stage] / whole)
        for sign, (stage, rate) in zip(plus, measured.stages.items(), strict=True)
    ]
    model = _format_cells("model alone", measured.model, measured.model.per_image, found.step["model"] / whole)
    joint = _format_cells("together", measured.joint, whole, 1.0)
    return table([HEADING, *rows, model, joint], "lrrrrr") + f"\n{LEGEND}"


def _format_cells(title: str, rate: Rate, added: float, share: float) -> tuple[str, ...]:
    speed, cost = f"{rate.per_second:.1f}", f"{1000 * added:.3f}"
    return title, speed, cost, f"{share:.0%}", f"{rate.cores:.1f}", f"{rate.per_core:.1f}"


def verdict(measured: Measurements, found: Diagnosis, recipe: Recipe, machine: Machine) -> list[str]:
    """Return lines: the side that is the limit, the change to make first, and other changes that might help."""
    if found.input_bound:
        said = f"INPUT-BOUND {found.share:.0%}: that share of each step waits for data. The limit is {found.limit}."
    else:
        said = f"COMPUTE-BOUND {found.share:.0%}: the limit is model. There is nothing to gain from the loader."
    change, *others = advice(found.limit, recipe, machine)
    lines = [f"verdict     {said}", f"change      {change}", *(f"or          {other}" for other in others)]
    slower = min(measured.model.per_second, measured.stages["copy"].per_second)
    if not machine.on_gpu and measured.joint.per_second < MIN_JOINT_SPEED * slower:
        lines.append(
            f"note        loader and network compete for {core_count(machine.cores)}: together they reach "
            f"{measured.joint.per_second / slower:.0%} of what the slower one does alone"
        )
    return lines


def advice(limit: str, recipe: Recipe, machine: Machine) -> list[str]:
    """Return changes that make the stage ``limit`` faster, the best first: options with their present values."""
    return list({"read": _faster_read, "model": _faster_model}.get(limit, _faster_stage)(limit, recipe, machine))


def _faster_read(_limit: str, recipe: Recipe, machine: Machine) -> Iterator[str]:
    if machine.idle >= MIN_IDLE_CORES:
        now = recipe.loading.read_threads
        yield f"--read-threads {2 * now} (now {now}), while reads wait for the disk or the network"
    yield _resize(recipe)
    yield "a faster disk: a local SSD rather than a network drive"


def _faster_stage(limit: str, recipe: Recipe, machine: Machine) -> Iterator[str]:
    """Yield changes for the stages of the loader that compute."""
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
    if machine.idle >= MIN_IDLE_CORES and recipe.workers < machine.cores:
        yield f"--workers {machine.cores} (now {recipe.workers}), since {machine.idle:.1f} cores are idle"
    if limit == "decode" and machine.on_gpu and recipe.loading.hw_decoder_load < HIGH_DECODER_LOAD:
        now = recipe.loading.hw_decoder_load
        yield f"--hw-decoder-load {HIGH_DECODER_LOAD} (now {now}), where the GPU has a hardware decoder"
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
    size = max(MIN_SHORT_SIDE, recipe.img_size * 3 // 2)
    source = recipe.data_dir or "DIR"
    return f"python -m backbones prepare {source} --resize {size} --out INDEX, once: smaller files with fewer pixels"
