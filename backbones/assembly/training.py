"""A training run from its recipe: network, data, accelerator -> fit."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from accelerate import Accelerator

from backbones.assembly.announce import conclude, introduce
from backbones.assembly.preflight.preflight import preflight
from backbones.assembly.probe import require_fitting_network
from backbones.assembly.run import (
    build_model,
    build_run,
    create_snapshots,
    require_network,
    splits,
    train_loader,
    val_loader,
)
from backbones.assembly.start.start import initialize, record_start
from backbones.data.loader import EvalLoader, TrainLoader
from backbones.dataset.index import Index
from backbones.recipe import Recipe, resolve
from backbones.training.compilation import compile_validation, require_compiler
from backbones.training.control import Control
from backbones.training.evaluate import Evaluation
from backbones.training.launch import create_accelerator, has_static_graph, precision_name, require_deterministic
from backbones.training.loop import Run, fit
from backbones.training.resume import read_state
from backbones.training.run_folder import choose_run_folder, claim
from backbones.training.snapshot import Snapshots
from backbones.training.status import report_status, write_status
from backbones.training.tracking import Tracker


def train(recipe: Recipe, *, command: Sequence[str], burn_in_gives_way: bool) -> Evaluation | None:
    """Train and return the figures of the last validation; None after a dry run.

    Args:
        recipe: the recipe as it was given.
        command: command that trains with this recipe in another process.
        burn_in_gives_way: shorten the burn-in where it is longer than the run.
    """
    if recipe.deterministic:
        require_deterministic()
    require_network(recipe)
    accelerator = create_accelerator(
        precision=recipe.precision,
        device=recipe.device,
        grad_accum_steps=recipe.grad_accum_steps,
        tf32=recipe.tf32,
        static_graph=has_static_graph(recipe),
        timeout=recipe.waiting.first_timeout,
    )
    require_compiler(recipe.torchcompile, accelerator.device)
    folder = choose_run_folder(recipe, accelerator)
    recipe = record_start(recipe)
    train, val = splits(recipe)
    batches = train_loader(recipe, train, accelerator), val_loader(recipe, val, accelerator)
    recipe = complete(recipe, accelerator, batches[0].steps_per_epoch, burn_in_gives_way=burn_in_gives_way)
    require_fitting_network(recipe, len(train.classes), accelerator.num_processes)
    if recipe.dry_run:
        preflight(recipe, accelerator, folder, train, val, command)
        return None
    return train_to_the_end(recipe, accelerator, folder, (train, val), batches)


def train_to_the_end(
    recipe: Recipe,
    accelerator: Accelerator,
    folder: Path,
    images: tuple[Index, Index],
    batches: tuple[TrainLoader, EvalLoader],
) -> Evaluation:
    """Train on the batches of the images, from step 0 or the checkpoint, and return the last validation's figures."""
    train, val = images
    state, changed = read_state(recipe, folder, accelerator, train=train.fingerprint, val=val.fingerprint)
    model = build_model(recipe, len(train.classes))
    start = initialize(model, recipe, train.classes)
    control = Control(accelerator, recipe.saving, recipe.waiting, run=str(folder))
    snapshots = create_snapshots(recipe, folder, model, train, val, control)
    tracker = Tracker(folder, recipe, wandb_id=state["wandb_id"]) if accelerator.is_main_process else None
    run = build_run(recipe, accelerator, model, batches, checkpoints=snapshots, tracker=tracker)
    if recipe.resume:
        snapshots.restore(run, state)
    snapshots.require_space(run)
    with protect(run, folder, control, snapshots):
        introduce(run, folder, train, val, changed, start)
        compile_validation(run, control.watchdog.beat)
        evaluation = fit(run, owes_validation=state["owes_validation"])
    conclude(run, folder, evaluation)
    accelerator.end_training()
    return evaluation


@contextmanager
def protect(run: Run, folder: Path, control: Control, snapshots: Snapshots) -> Iterator[None]:
    """Own the run folder, answer signals, and end a run that hangs, during the block; wait for the last checkpoint."""
    note_hang = partial(report_hang, run, folder)
    with control.listening(), record(run, folder), snapshots.writing(), control.explaining_hangs(note_hang):
        yield


@contextmanager
def record(run: Run, folder: Path) -> Iterator[None]:
    """On the first process, own the run folder and log to it while the run lasts."""
    tracker = run.report.tracker
    if tracker is None:
        yield
        return
    with claim(folder, run.recipe), report_status(folder, lambda: run.step), tracker.open(run.step):
        yield


def report_hang(run: Run, folder: Path) -> None:
    """Write to status.json that the run failed; the watchdog ends the process next."""
    if run.accelerator.is_main_process:
        write_status(folder, "failed", run.step)


def complete(recipe: Recipe, accelerator: Accelerator, steps_per_epoch: int, *, burn_in_gives_way: bool) -> Recipe:
    """Return the recipe with the values that depend on the launcher and on the data."""
    precision = precision_name(accelerator)
    return resolve(recipe, precision=precision, steps_per_epoch=steps_per_epoch, burn_in_gives_way=burn_in_gives_way)
