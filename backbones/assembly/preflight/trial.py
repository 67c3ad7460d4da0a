"""Checks that train: memory and learning at the real batch, and a run that is killed and resumed."""

import os
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from accelerate import Accelerator
from torch import Tensor

from backbones.assembly.preflight.row import Row
from backbones.assembly.run import build_model, build_run, create_snapshots, train_loader, val_loader
from backbones.assembly.start.start import initialize
from backbones.data.batch import Batch
from backbones.dataset.index import Index
from backbones.errors import UserError
from backbones.recipe import Log, Recipe, Saving
from backbones.training.control import Control
from backbones.training.evaluate import evaluate
from backbones.training.loop import NoCheckpoints, Run, train_step
from backbones.training.manifest import MANIFEST, hash_of, named_tensors
from backbones.training.resume import read_state
from backbones.training.run_files import LAST

STEPS = 20
"""Steps on the same images, whose loss must fall."""

LR_SHARE = 0.1
"""Learning rate of these steps / that of the recipe: there is no burn-in."""

SAVE_EVERY = 2
"""Steps between two checkpoints of the run that is killed, and steps that are made after it is resumed."""

START_SECONDS = 120.0
"""Time in which that run must reach its first checkpoint."""

MAX_IMAGES = 2000
"""Validation images that are evaluated."""

MAX_LOADING_SECONDS = 10.0
"""Time for which the loader is measured."""

DECODED_IMAGES = 256
"""Images of each process whose decoding is compared with PIL's."""

MAX_MEMORY = 0.95
"""Share of a GPU's memory above which the fragments of a long run may not fit."""


@dataclass
class Trial:
    """A recipe to try, with its data, and the speeds that were measured."""

    recipe: Recipe
    accelerator: Accelerator
    train: Index
    val: Index
    folder: Path
    """A temporary folder, the same one on every process, on the disk of the run folder."""
    command: Sequence[str] = ()
    """Command that trains with this recipe in another process; empty where this one has others beside it."""
    speeds: dict[str, float] = field(default_factory=dict)
    """Images per second of this process by part: model, loader."""

    def build(self, recipe: Recipe) -> Run:
        """Return a new run of a recipe that writes no rows."""
        recipe = replace(recipe, log=Log(interval=10**9))
        batches = train_loader(recipe, self.train, self.accelerator), val_loader(recipe, self.val, self.accelerator)
        model = build_model(recipe, len(self.train.classes))
        initialize(model, recipe, self.train.classes)
        return build_run(recipe, self.accelerator, model, batches, checkpoints=NoCheckpoints())


def check_start(trial: Trial) -> Iterator[Row]:
    """Fill a network with the weights that the run starts from; there is no row where it starts from random ones."""
    model = build_model(trial.recipe, len(trial.train.classes))
    for line in initialize(model, trial.recipe, trial.train.classes):
        yield Row("start", passed=True, found=line.partition("\n")[0])


def check_resume(trial: Trial) -> Iterator[Row]:
    """Save, kill and resume a run, and compare it with one that was not disturbed.

    Where several processes run, the run is thrown away in place of killed: a second launch would need their devices.
    """
    recipe = replace(
        trial.recipe,
        output=str(trial.folder / "run"),
        epochs=None,
        steps=10_000,
        optim=replace(trial.recipe.optim, burn_in=1),
        saving=Saving(ckpt_minutes=None, ckpt_every=SAVE_EVERY),
        resume=str(trial.folder / "run"),
    )
    how = _kill_after_a_save(trial, recipe) if trial.command else _save_and_forget(trial, recipe)
    resumed, step = _resume(trial, recipe)
    straight = _advance(trial.build(replace(recipe, resume=None)), step + SAVE_EVERY)
    equal = hash_of(resumed) == hash_of(straight)
    difference = _largest_difference(resumed, straight)
    found = f"{how} after step {step}, resumed: step {step + SAVE_EVERY} is "
    if trial.accelerator.device.type == "cuda" and not recipe.deterministic:
        is_close = difference < 1e-3
        yield Row("resume", is_close, f"{found}equal up to {difference:.1e} (to the bit with --deterministic)")
    else:
        yield Row("resume", equal, found + ("equal to the bit" if equal else f"different by {difference:.1e}"))


def check_learning(trial: Trial) -> Iterator[Row]:
    """Make ``STEPS`` steps at the real batch on the same images: the loss must fall and the memory suffice."""
    run = trial.build(trial.recipe)
    run.schedule = lambda _step: LR_SHARE * trial.recipe.lr
    run.model.train()
    with closing(run.train_batches.from_step(0)) as batches:
        fixed = list(islice(batches, trial.recipe.grad_accum_steps))
    losses, start = [], 0.0
    for step, stream in enumerate([_copies(fixed)] * STEPS):
        if step == 1:  # the first step allocates and compiles
            start = _now(trial.accelerator)
        train_step(run, stream)
        losses.append(torch.stack(run.report.losses[-len(fixed) :]).mean())
    seconds = _now(trial.accelerator) - start
    trial.speeds["model"] = (STEPS - 1) * trial.recipe.batch_size / trial.accelerator.num_processes / seconds
    values = torch.stack(losses).tolist()
    before, after = np.mean(values[:5]), np.mean(values[-5:])
    text = f"{STEPS} steps on the same images: loss {values[0]:.3f} -> {values[-1]:.3f}"
    yield Row("learning", bool(after < before), text)
    yield describe_memory(trial.accelerator)


def check_decoding(trial: Trial) -> Iterator[Row]:
    """Compare a sample of decoded images with what PIL decodes."""
    compared = train_loader(trial.recipe, trial.train, trial.accelerator).check_decoding(DECODED_IMAGES)
    if compared:
        text = f"{compared} images of this process have the pixels that PIL decodes, up to rounding"
        yield Row("decoding", passed=True, found=text)


def check_loader(trial: Trial) -> Iterator[Row]:
    """Measure the loader alone."""
    loader = train_loader(trial.recipe, trial.train, trial.accelerator)
    with closing(loader.from_step(0)) as batches:
        next(batches)
        start, images = time.perf_counter(), 0
        while time.perf_counter() - start < MAX_LOADING_SECONDS and images < 50 * trial.recipe.batch_size:
            images += len(next(batches).labels)
    trial.speeds["loader"] = images / (time.perf_counter() - start)
    yield Row("loader", passed=True, found=f"{trial.speeds['loader']:.0f} images/s of this process")


def check_evaluation(trial: Trial) -> Iterator[Row]:
    """Evaluate the untrained network on some of the validation images and count them."""
    every = -(-len(trial.val) // MAX_IMAGES)
    rows = np.arange(0, len(trial.val), every)
    part = trial.val.take(rows) if every > 1 else trial.val
    model = build_model(trial.recipe, len(trial.train.classes)).to(trial.accelerator.device)
    figures = evaluate(trial.accelerator, model, val_loader(trial.recipe, part, trial.accelerator), expected=len(part))
    which = f"every {every}th" if every > 1 else "all"
    yield Row("evaluation", figures.n == len(part), f"{figures.n} images counted of {len(part)} ({which})")


def describe_memory(accelerator: Accelerator) -> Row:
    """Return the row about the memory of the steps before."""
    if accelerator.device.type == "cuda":
        used = torch.cuda.max_memory_reserved(accelerator.device)
        whole = torch.cuda.get_device_properties(accelerator.device).total_memory
        text = f"{used / 2**30:.1f} of {whole / 2**30:.1f} GiB of the GPU at the real batch"
        return Row("memory", used < MAX_MEMORY * whole, text)
    used, free = psutil.Process().memory_info().rss, psutil.virtual_memory().available
    return Row("memory", passed=True, found=f"{used / 2**30:.1f} GiB on the host, {free / 2**30:.1f} GiB are free")


def _kill_after_a_save(trial: Trial, recipe: Recipe) -> str:
    """Start a run in a process of its own, and kill it with -9 when its first checkpoint is there."""
    words = ["--dry-run", "false", "--resume", "null", "--log-wandb", "false", "--epochs", "null"]
    words += ["--init-weights", recipe.init_weights or "null", "--pretrained", str(recipe.pretrained).lower()]
    words += ["--output", str(recipe.output), "--steps", str(recipe.steps), "--burn-in", "1"]
    words += ["--ckpt-minutes", "null", "--ckpt-every", str(SAVE_EVERY)]
    log = trial.folder / "log.txt"
    threads = {
        "OMP_NUM_THREADS": str(torch.get_num_threads())
    }  # with other threads, sums on a CPU are rounded otherwise
    with (
        log.open("w") as opened,
        subprocess.Popen(
            [*trial.command, *words], stdout=opened, stderr=opened, env={**os.environ, **threads}
        ) as process,
    ):
        deadline = time.monotonic() + START_SECONDS
        while not (Path(str(recipe.output)) / LAST / MANIFEST).is_file():
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                last = (log.read_text(errors="replace").strip().splitlines() or ["nothing"])[-1]
                raise UserError(f"the run in a process of its own wrote no checkpoint; it said: {last}")
            time.sleep(0.1)
        process.kill()
    return "killed with -9"


def _save_and_forget(trial: Trial, recipe: Recipe) -> str:
    """Write a checkpoint and throw the run away."""
    run = trial.build(replace(recipe, resume=None))
    _advance(run, SAVE_EVERY)
    snapshots = _snapshots(trial, recipe, run)
    snapshots.write_last(run, {}, owes_validation=False)
    snapshots.finish()
    trial.accelerator.wait_for_everyone()
    return "thrown away"


def _resume(trial: Trial, recipe: Recipe) -> tuple[dict[str, Tensor], int]:
    """Return the tensors of the resumed run ``SAVE_EVERY`` steps later, and the step of its checkpoint."""
    folder = Path(str(recipe.output))
    fingerprints = {"train": trial.train.fingerprint, "val": trial.val.fingerprint}
    state, _ = read_state(recipe, folder, trial.accelerator, **fingerprints)
    run = trial.build(recipe)
    _snapshots(trial, recipe, run).restore(run, state)
    return _advance(run, state["step"] + SAVE_EVERY), state["step"]


def _snapshots(trial: Trial, recipe: Recipe, run: Run) -> Any:
    control = Control(trial.accelerator, recipe.saving, recipe.waiting)
    return create_snapshots(recipe, Path(str(recipe.output)), run.plain_model, trial.train, trial.val, control)


def _advance(run: Run, step: int) -> dict[str, Tensor]:
    """Train up to ``step`` and return the tensors of weights, average and optimizer."""
    run.model.train()
    with closing(run.train_batches.from_step(run.step)) as batches:
        while run.step < step:
            train_step(run, batches)
    networks = {name: network.state_dict() for name, network in run.networks.items()}
    return dict(named_tensors([networks, run.optimizer.optimizer.state_dict()["state"]]))


def _largest_difference(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    """Return the largest difference / the largest value of the same tensor."""
    if a.keys() != b.keys():
        return float("inf")
    pairs = [(a[name].double(), b[name].double()) for name in a]
    return max(float((x - y).abs().max() / y.abs().max().clamp_min(1e-12)) for x, y in pairs if x.numel())


def _copies(batches: list[Batch]) -> Iterator[Batch]:
    """Yield the batches again and again, with images that mixing may change."""
    for batch in cycle(batches):
        yield batch._replace(images=batch.images.clone())


def _now(accelerator: Accelerator) -> float:
    if accelerator.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


CHECKS: dict[str, Callable[[Trial], Iterator[Row]]] = {
    "start": check_start,
    "resume": check_resume,
    "learning": check_learning,
    "decoding": check_decoding,
    "loader": check_loader,
    "evaluation": check_evaluation,
}
"""Checks in the order in which they are made: the one that starts another process comes before memory is taken."""
