"""The folder of a run: its name, its owner, and the recipe in it."""

import os
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
from backbones.terminal import say
from backbones.training.checkpoint import find_resumable
from backbones.training.guard import NOT_FINITE
from backbones.training.health.heartbeat import HEARTBEAT
from backbones.training.run_files import RECIPE, find_checkpoint
from backbones.training.status import STATUS
from backbones.training.tracking import METRICS, SUMMARY
from backbones.training.wandb_sender import LEDGERS, PICTURES
from backbones.training.wandb_sender import LOCK as WANDB_LOCK

LEFTOVERS = (METRICS, SUMMARY, STATUS, HEARTBEAT, *LEDGERS)
"""Files of a run that never reached a checkpoint. Its folder may be used again."""
KEPT_LEFTOVERS = (RECIPE, LOCK, WANDB_LOCK, PICTURES, "wandb")
"""More of them that need not be removed: pictures after its first step are dropped by the tracker."""


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
def claim(folder: Path, recipe: Recipe) -> Iterator[None]:
    """Own the folder while the run lasts, and write the recipe: ``--config FOLDER/recipe.yaml`` repeats the run.

    Raises ``UserError`` when another process owns it, or, for a new run, has used it in the meantime.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with lock(folder, "belongs to a run that is still going"):
        if recipe.resume is None:
            _require_unused(folder)
            for path in [*(folder / name for name in LEFTOVERS), *folder.glob(f"{NOT_FINITE}*")]:
                path.unlink(missing_ok=True)
        remove_leftovers(folder)
        repeatable = replace(recipe, output=None, resume=None, price=None)
        write_text(folder / RECIPE, yaml.safe_dump(repeatable.to_dict(), sort_keys=False))
        yield


def find_automatically(output: str | None) -> str | None:
    """Return the newest sound checkpoint in the run folder ``output``; None where the run has none yet.

    Checkpoints that are damaged are skipped and named. Raises UserError where all of them are.
    """
    if output is None:
        raise UserError("--resume auto needs --output RUN: the folder to go on in, or to begin in.")
    folder, faults = find_resumable(Path(output).expanduser())
    if os.environ.get("RANK", "0") == "0":
        for fault in faults:
            say("skipped", fault)
    return str(folder) if folder else None


def _folder_or_error(recipe: Recipe) -> str | UserError:
    try:
        folder = _choose_folder(recipe)
        require_output_folder("--output", folder)
        return str(folder)
    except UserError as error:
        return error
    except OSError as error:
        return UserError(f"--output {recipe.output}: {error.strerror}.")


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
    if folder.is_dir() and any(not _is_known(path) for path in folder.iterdir()):
        raise UserError(
            f"--output {folder} is already in use. Go on with that run by --resume {folder}, "
            "or name another folder; nothing was overwritten."
        )


def _is_known(path: Path) -> bool:
    """Tell whether a run that never reached a checkpoint leaves such a file."""
    return path.name in {*LEFTOVERS, *KEPT_LEFTOVERS} or path.suffix == PARTIAL or path.name.startswith(NOT_FINITE)
