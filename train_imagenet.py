"""Train a backbone: command line -> recipe -> network, data, accelerator -> fit.

accelerate launch train_imagenet.py --model csresnext50_ws_mi2 --data-dir /imagenet
"""

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from backbones import canonical_name
from backbones.assembly.request import require_one_start, require_possible
from backbones.command_line import find_value, parse
from backbones.errors import exit_on_user_error
from backbones.recipe import Recipe
from backbones.training.run_files import AUTO, recipe_of

if TYPE_CHECKING:
    from backbones.training.evaluate import Evaluation


def main(argv: Sequence[str]) -> "Evaluation | None":
    """Train as the command line says and return the figures of the last validation; None after a dry run."""
    recipe = read_recipe(argv)
    require_possible(recipe)
    from backbones.assembly.training import train

    command = [sys.executable, __file__, *argv]
    return train(recipe, command=command, burn_in_gives_way=burn_in_gives_way(argv))


def read_recipe(argv: Sequence[str]) -> Recipe:
    """Return the recipe; a resumed run has its own as a file below the command line, unless another is named."""
    resume = find_value(Recipe, argv, "resume")
    resume = None if resume == "null" else resume
    require_one_start(resume, *(find_value(Recipe, argv, option) for option in ("init_weights", "pretrained")))
    if resume == AUTO:
        from backbones.training.run_folder import find_automatically

        resume = find_automatically(find_value(Recipe, argv, "output"))
        argv = [*argv, "--resume", resume or "null"]
    config = recipe_of(resume) if resume and find_value(Recipe, argv, "config") is None else None
    recipe = parse(Recipe, argv, description=__doc__ or "", config=config)
    return replace(recipe, model=canonical_name(recipe.model))


def burn_in_gives_way(argv: Sequence[str]) -> bool:
    """Return whether the command line sets the length of the run, but not the burn-in."""
    length = find_value(Recipe, argv, "epochs") or find_value(Recipe, argv, "steps")
    return length is not None and find_value(Recipe, argv, "optim.burn_in") is None


if __name__ == "__main__":
    with exit_on_user_error():
        main(sys.argv[1:])
