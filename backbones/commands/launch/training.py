"""Options of train_imagenet.py in a job: checked by its own recipe, and completed for a scheduler."""

from collections.abc import Sequence
from dataclasses import dataclass

from backbones.command_line import find_value, parse
from backbones.commands.launch.request import Request
from backbones.errors import UserError
from backbones.recipe import Recipe, micro_batch

AUTO = "auto"
"""The value of --resume that begins a run or goes on with it."""


@dataclass(frozen=True)
class Training:
    """Training options of a job."""

    words: tuple[str, ...]
    """Words of the command line of train_imagenet.py, as they were typed, and what a scheduler needs."""
    recipe: Recipe
    """Recipe that they mean."""
    run: str
    """Run folder."""


def read_training(words: Sequence[str], request: Request) -> Training:
    """Return the training options for a job of this size.

    Raises UserError for an option that the trainer does not know, a run folder that is not named, another --resume than
    auto, or a batch that the processes cannot share.
    """
    recipe = parse(Recipe, words, prog="python -m backbones launch ENGINE ... --")
    if recipe.output is None:
        raise UserError(
            "--output is missing after --: name the run folder, so that a job that is started again finds it."
        )
    if recipe.data_dir is None and recipe.loader != "synthetic":
        raise UserError("--data-dir is missing after --: name the folder of the images, as the hosts see it.")
    if recipe.resume not in (None, AUTO):
        raise UserError(f"--resume {recipe.resume}: a job is always started with --resume auto; leave it out.")
    _require_even_batch(recipe, request)
    return Training((*words, *_complete(words, recipe, request)), recipe, recipe.output)


def _require_even_batch(recipe: Recipe, request: Request) -> None:
    parts = request.processes * recipe.grad_accum_steps
    if recipe.batch_size % parts == 0:
        return
    low = recipe.batch_size // parts * parts
    near = f"{low} or {low + parts}" if low else str(parts)
    raise UserError(
        f"batch_size={recipe.batch_size} cannot be shared by {request.nodes} hosts x {request.processes_per_node} "
        f"processes x {recipe.grad_accum_steps} accumulation steps = {parts}: the nearest are {near}."
    )


def _complete(words: Sequence[str], recipe: Recipe, request: Request) -> list[str]:
    """Return what is added to the words of the user."""
    added = [] if find_value(Recipe, words, "resume") else ["--resume", AUTO]
    if recipe.device == "auto" and not request.gpus:
        added += ["--device", "cpu"]
    if recipe.precision == "auto" and request.gpus:
        added += ["--precision", "bf16"]
    return added


def cores_per_node(request: Request, recipe: Recipe) -> int:
    """Return the CPU cores of each host: as asked for, or one for each decoding thread and each process."""
    return request.cpus or request.processes_per_node * (recipe.workers + 1)


def describe(request: Request, recipe: Recipe) -> str:
    """Return what runs where, in one line."""
    kind = f"{request.gpus} GPUs" if request.gpus else "the CPU"
    share = micro_batch(recipe, request.processes)
    return f"{recipe.model} on {request.nodes} x {kind}, {recipe.batch_size} images per step, {share} in each process"
