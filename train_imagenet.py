"""Train a backbone: recipe -> model, data, accelerator -> fit.

accelerate launch train_imagenet.py --model csresnext50_ws_mi2 --data-dir /imagenet
"""

import sys
from collections.abc import Sequence
from dataclasses import replace

from backbones import canonical_name
from backbones.command_line import parse
from backbones.commands.assembly import build_model, build_run, splits, train_loader, val_loader
from backbones.errors import exit_on_user_error
from backbones.recipe import Recipe
from backbones.training.announce import conclude, introduce
from backbones.training.evaluate import Evaluation
from backbones.training.launch import create_accelerator
from backbones.training.loop import fit
from backbones.training.run_folder import choose_run_folder, claim, recipe_of
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
    snapshots = Snapshots(folder, recipe, train.classes, train.fingerprint)
    state, changed = snapshots.read_state() if recipe.resume else ({}, {})
    with train_loader(recipe, train, accelerator) as batches:
        model = build_model(recipe, len(train.classes))
        run = build_run(recipe, accelerator, model, (batches, val_loader(recipe, val, accelerator)), snapshots)
        if state:
            snapshots.restore(run, state)
        introduce(run, recipe, folder, changed, train_size=len(train), classes=len(train.classes))
        if accelerator.is_main_process:
            claim(folder, recipe)
            run.tracker = Tracker(folder, recipe, wandb_id=state.get("wandb_id"))
            run.tracker.rewind(run.step)
        evaluation = fit(run)
    conclude(run, recipe, folder, evaluation)
    accelerator.end_training()
    return evaluation


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
