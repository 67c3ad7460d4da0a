"""The folder of a run: its name, its owner, and the recipe in it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import yaml
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from backbones.errors import UserError
from backbones.files import LOCK, PARTIAL, lock, remove_leftovers, require_output_folder, write_text
from backbones.recipe import Recipe
from backbones.training.checkpoint import find_checkpoint
from backbones.training.tracking import METRICS, SUMMARY

RECIPE = "recipe.yaml"
LEFTOVERS = (METRICS, SUMMARY)
"""Files of a run that never reached a checkpoint. Its folder may be used again."""


def choose_run_folder(recipe: Recipe, accelerator: Accelerator) -> Path:
    """Return the folder that this run writes to, the same on every process; nothing is created yet.

    Raises ``UserError`` when it is in use by another run or cannot be written, or when the checkpoint to resume does
    not exist.
    """
    answers: list[str | UserError] = [_folder_or_error(recipe) if accelerator.is_main_process else ""]
    broadcast_object_list(answers)
    if isinstance(answers[0], UserError):
        raise answers[0]
    return Path(answers[0])


@contextmanager
def claimed(folder: Path, recipe: Recipe) -> Iterator[None]:
    """Own the folder while the run lasts, and write the recipe: ``--config FOLDER/recipe.yaml`` repeats the run.

    Raises ``UserError`` when another process owns it, or, for a new run, has used it in the meantime.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with lock(folder, "belongs to a run that is still going"):
        if recipe.resume is None:
            _require_unused(folder)
            for name in LEFTOVERS:
                (folder / name).unlink(missing_ok=True)
        remove_leftovers(folder)
        repeatable = replace(recipe, output=None, resume=None)
        write_text(folder / RECIPE, yaml.safe_dump(repeatable.to_dict(), sort_keys=False))
        yield


def recipe_of(resume: str) -> Path | None:
    """Return the recipe file of the run that a ``--resume`` path belongs to, if it has one."""
    checkpoint = find_checkpoint(Path(resume))
    file = checkpoint.parent / RECIPE
    return file if file.is_file() else None


def _folder_or_error(recipe: Recipe) -> str | UserError:
    try:
        folder = _choose_folder(recipe)
        require_output_folder("--output", folder)
        return str(folder)
    except UserError as error:
        return error


def _choose_folder(recipe: Recipe) -> Path:
    resumed = find_checkpoint(Path(recipe.resume)).parent if recipe.resume else None
    if resumed and (recipe.output is None or Path(recipe.output).resolve() == resumed.resolve()):
        return resumed
    folder = Path(recipe.output or f"runs/{datetime.now():%Y%m%d-%H%M%S}-{recipe.model.replace('/', '_')}")
    _require_unused(folder)
    return folder


def _require_unused(folder: Path) -> None:
    if folder.is_file():
        raise UserError(f"--output {folder} is a file; name a folder.")
    known = {RECIPE, LOCK, *LEFTOVERS}
    if folder.is_dir() and any(path.name not in known and path.suffix != PARTIAL for path in folder.iterdir()):
        raise UserError(
            f"--output {folder} is already in use. Go on with that run by --resume {folder}, "
            "or name another folder; nothing was overwritten."
        )
