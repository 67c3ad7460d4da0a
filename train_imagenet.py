"""Train a backbone: recipe -> model, data, accelerator -> fit.

accelerate launch train_imagenet.py --model csresnext50_ws_mi2 --data-dir /imagenet
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

from backbones import canonical_name
from backbones.assembly.run import build_model, build_run, splits, train_loader, val_loader
from backbones.command_line import parse
from backbones.errors import exit_on_user_error
from backbones.recipe import Recipe, resolve
from backbones.training.announce import conclude, introduce
from backbones.training.evaluate import Evaluation
from backbones.training.launch import create_accelerator, precision_name
from backbones.training.loop import Run, fit
from backbones.training.run_folder import choose_run_folder, claimed, recipe_of
from backbones.training.snapshot import Snapshots
from backbones.training.tracking import Tracker


def main(argv: Sequence[str]) -> Evaluation:
    """Train as the command line says and return the figures of the last validation."""
    recipe = read_recipe(argv)
    accelerator = create_accelerator(
        precision=recipe.precision, device=recipe.device, grad_accum_steps=recipe.grad_accum_steps
    )
    folder = choose_run_folder(recipe, accelerator)
    train, val = splits(recipe)
    with train_loader(recipe, train, accelerator) as batches:
        recipe = resolve(recipe, precision=precision_name(accelerator), steps_per_epoch=batches.steps_per_epoch)
        snapshots = Snapshots(folder, recipe, train.classes, train.fingerprint, val.fingerprint)
        state, changed = snapshots.read_state(accelerator) if recipe.resume else ({}, {})
        model = build_model(recipe, len(train.classes))
        run = build_run(recipe, accelerator, model, (batches, val_loader(recipe, val, accelerator)), snapshots)
        if state:
            snapshots.restore(run, state)
        notes = train.notes + val.notes
        introduce(run, recipe, folder, changed, train_size=len(train), classes=len(train.classes), notes=notes)
        with tracked(run, recipe, folder, wandb_id=state.get("wandb_id")):
            evaluation = fit(run)
    conclude(run, recipe, folder, evaluation)
    accelerator.end_training()
    return evaluation


@contextmanager
def tracked(run: Run, recipe: Recipe, folder: Path, *, wandb_id: str | None) -> Iterator[None]:
    """On rank 0, own the run folder and log to it while the run lasts."""
    if not run.accelerator.is_main_process:
        yield
        return
    with claimed(folder, recipe), closing(Tracker(folder, recipe, wandb_id=wandb_id)) as run.tracker:
        run.tracker.rewind(run.step)
        if run.tracker.wandb:
            run.progress.print(f"W&B         {run.tracker.wandb.where}")
        yield


def read_recipe(argv: Sequence[str]) -> Recipe:
    """Return the recipe; a resumed run starts from its own unless another is named."""
    recipe = parse(Recipe, argv, description=__doc__ or "")
    names_config = any(word.startswith(("-c", "--config")) for word in argv)
    if recipe.resume and not names_config:
        recipe = parse(Recipe, argv, config=recipe_of(recipe.resume))
    return replace(recipe, model=canonical_name(recipe.model))


if __name__ == "__main__":
    with exit_on_user_error():
        main(sys.argv[1:])
