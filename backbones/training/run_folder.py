"""The folder of a run: whose it is, what it is called, and the recipe that lies in it."""

from dataclasses import replace
from datetime import datetime
from pathlib import Path

import yaml
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from backbones.errors import UserError
from backbones.recipe import Recipe
from backbones.training.checkpoint import find_checkpoint

RECIPE = "recipe.yaml"


def choose_run_folder(recipe: Recipe, accelerator: Accelerator) -> Path:
    """Return the folder that this run writes to, the same on every process; nothing is created yet.

    Raises ``UserError`` when it is in use by another run, or when the checkpoint to resume does not exist.
    """
    answers: list[str | UserError] = [_folder_or_error(recipe) if accelerator.is_main_process else ""]
    broadcast_object_list(answers)
    if isinstance(answers[0], UserError):
        raise answers[0]
    return Path(answers[0])


def claim(folder: Path, recipe: Recipe) -> None:
    """Create the folder and write the recipe into it, so that ``--config FOLDER/recipe.yaml`` repeats the run."""
    folder.mkdir(parents=True, exist_ok=True)
    repeatable = replace(recipe, output=None, resume=None)
    (folder / RECIPE).write_text(yaml.safe_dump(repeatable.to_dict(), sort_keys=False))


def recipe_of(resume: str) -> Path | None:
    """Return the recipe file of the run that a ``--resume`` path belongs to, if it has one."""
    checkpoint = find_checkpoint(Path(resume))
    file = checkpoint.parent / RECIPE
    return file if file.is_file() else None


def _folder_or_error(recipe: Recipe) -> str | UserError:
    try:
        return str(_chosen(recipe))
    except UserError as error:
        return error


def _chosen(recipe: Recipe) -> Path:
    resumed = find_checkpoint(Path(recipe.resume)).parent if recipe.resume else None
    if resumed and (recipe.output is None or Path(recipe.output).resolve() == resumed.resolve()):
        return resumed
    folder = Path(recipe.output or f"runs/{datetime.now():%Y%m%d-%H%M%S}-{recipe.model.replace('/', '_')}")
    _require_unused(folder)
    return folder


def _require_unused(folder: Path) -> None:
    if folder.is_file():
        raise UserError(f"--output {folder} is a file; name a folder.")
    if folder.is_dir() and any(folder.iterdir()):
        raise UserError(
            f"--output {folder} is already in use. Go on with that run by --resume {folder}, "
            "or name another folder; nothing was overwritten."
        )
