"""Network and data of a recipe, checked as far as it is possible without torch, which takes seconds to import."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from backbones import canonical_name
from backbones.darknet.cfg import read_cfg
from backbones.darknet.endings import is_cfg, is_weights_file
from backbones.dataset.splits import data_folder
from backbones.errors import UserError
from backbones.model_names import require_possible_name
from backbones.models.variants import VARIANTS, override
from backbones.recipe import Recipe
from backbones.training.run_files import AUTO, find_checkpoint

LOADING = ("pretrained", "checkpoint_path")
"""Keyword arguments of timm.create_model that load weights."""


def without_loading(model_args: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a network without those that load weights into it."""
    return {name: value for name, value in model_args.items() if name not in LOADING}


def require_possible(recipe: Recipe) -> None:
    """Raise UserError where torch is not needed to tell that there is no such network, option, file or folder.

    A resumed run has its network in the checkpoint.
    """
    if recipe.resume is None:
        with explain_model_args(recipe):
            require_network_name(recipe.model)
            if (ours := VARIANTS.get(canonical_name(recipe.model))) is not None:
                override(ours.spec, dict(recipe.model_args))
        require_weights_file(recipe)
    if recipe.loader != "synthetic":
        require_data_dir(recipe)


def require_one_start(resume: str | None, init_weights: str | None, pretrained: str | None) -> None:
    """Raise UserError where a command line, of which these are the words, both resumes a run and starts from weights.

    ``--resume auto`` may: it starts from weights once, and resumes later.
    """
    is_pretrained = str(pretrained).lower() in ("true", "yes")
    start = "--pretrained" if is_pretrained else f"--init-weights {init_weights}"
    if resume not in (None, AUTO) and (is_pretrained or init_weights not in (None, "null")):
        raise UserError(
            f"--resume {resume} goes on with the weights of that run, {start} starts a new one: keep one of them."
        )


def require_network_name(name: str, *, hint: str = "") -> None:
    """Raise UserError where no network has this name, or the cfg file is missing or wrong.

    The message about a name ends with ``hint``.
    """
    if is_cfg(name):
        read_cfg(name)
        return
    try:
        require_possible_name(name)
    except UserError as error:
        raise UserError(f"{error}{hint}") from None


def require_checkpoint(ckpt: str) -> None:
    """Raise UserError where there is no such run, checkpoint or weights file."""
    if not is_weights_file(ckpt):
        find_checkpoint(Path(ckpt))


def require_weights_file(recipe: Recipe) -> None:
    """Raise UserError where the weights of ``model_args`` are missing."""
    weights = recipe.model_args.get("checkpoint_path")
    if weights and recipe.resume is None and not Path(weights).is_file():
        raise UserError(f"--model-args {{checkpoint_path: {weights}}}: there is no such file.")


def require_data_dir(recipe: Recipe) -> str:
    """Return the folder of the data set. Raises UserError where it is not named, or is none."""
    if recipe.data_dir is None:
        raise UserError("--data-dir is missing: name the folder with train/CLASS/*.jpg and val/CLASS/*.jpg.")
    data_folder(recipe.data_dir)
    return recipe.data_dir


@contextmanager
def explain_model_args(recipe: Recipe) -> Iterator[None]:
    """Turn the errors of a network's options into a UserError that names the options."""
    try:
        yield
    except (UserError, MemoryError):
        raise
    except Exception as error:
        raise UserError(
            f"--model {recipe.model} cannot be built with --model-args {recipe.model_args}: "
            f"{str(error).strip() or type(error).__name__}"
        ) from error
