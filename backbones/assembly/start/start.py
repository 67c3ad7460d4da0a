"""The start of a new run from weights: read on every process, the same on all, and recorded in the recipe."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from accelerate.utils import gather_object
from torch import nn

from backbones.assembly.start.fit import Fit, Source, describe_misfits, fit_weights, tabulate_misfits
from backbones.assembly.start.source import find_source, read_pretrained, read_source
from backbones.errors import UserError
from backbones.recipe import Recipe
from backbones.training.checkpoint import read_description
from backbones.training.manifest import measure
from backbones.training.run_files import find_checkpoint, weights_file

SHOWN_DIGITS = 12
"""Digits of a sha256 that a message shows."""


def record_start(recipe: Recipe) -> Recipe:
    """Return the recipe with the sha256 of the weights that the run starts from.

    A resumed run has it from its checkpoint, and does not need the weights any more. Every process calls this.

    Raises:
        UserError: there are no such weights, they are not those of ``init_sha256``, or they differ between processes.
    """
    if not recipe.starts_from_weights:
        return recipe
    if recipe.resume is not None:
        return replace(recipe, init_sha256=_read_recorded(recipe.resume))
    answers: list[str | UserError] = gather_object([_hash_or_error(recipe)])
    for answer in answers:
        if isinstance(answer, UserError):
            raise answer
    if len(set(answers)) > 1:
        where = ", ".join(f"process {rank} {str(answer)[:SHOWN_DIGITS]}" for rank, answer in enumerate(answers))
        raise UserError(f"{_name(recipe)} is not the same for all processes. sha256: {where}.")
    return replace(recipe, init_sha256=str(answers[0]))


def initialize(network: nn.Module, recipe: Recipe, classes: Sequence[str]) -> list[str]:
    """Fill the network of a new run with the weights that it starts from. Torch's random state does not change.

    Args:
        network: the network with its random weights, which the classifier keeps where it is made anew.
        recipe: `record_start` of the recipe. Nothing happens where it starts from random weights or resumes a run.
        classes: class names of the data set, in the order of the outputs.

    Returns:
        Lines for people.

    Raises:
        UserError: the weights do not fit, and the recipe does not allow it; they hold values that are not finite.
    """
    if not recipe.starts_from_weights or recipe.resume is not None:
        return []
    source = _read(recipe, network)
    if source.sha256 != recipe.init_sha256:
        raise UserError(_describe_change(recipe, source.sha256))
    fit = fit_weights(network, source, classes)
    _require_fit(recipe, source, fit)
    network.load_state_dict(dict(fit.taken), strict=False)
    return _describe(recipe, source, fit)


def _read(recipe: Recipe, network: nn.Module) -> Source:
    if recipe.init_weights is None:
        return read_pretrained(recipe.model, recipe.model_args)
    return read_source(find_source(recipe.init_weights), network, may_end_early=recipe.init_partial)


def _hash_or_error(recipe: Recipe) -> str | UserError:
    """Return the sha256 of the weights, or the error that all processes must raise."""
    try:
        found = _hash(recipe)
        if recipe.init_sha256 in (None, found):
            return found
        return UserError(_describe_change(recipe, found))
    except UserError as error:
        return error
    except OSError as error:
        return UserError(f"{_name(recipe)}: {error.strerror}.")


def _hash(recipe: Recipe) -> str:
    if recipe.init_weights is None:
        return read_pretrained(recipe.model, recipe.model_args).sha256
    return measure(find_source(recipe.init_weights))["sha256"]


def _read_recorded(resume: str) -> str | None:
    """Return the sha256 that a checkpoint records."""
    about = read_description(weights_file(find_checkpoint(Path(resume)), ema=False)) or {}
    return about.get("init", {}).get("init_sha256")


def _name(recipe: Recipe) -> str:
    return f"--init-weights {recipe.init_weights}" if recipe.init_weights else f"--pretrained ({recipe.model})"


def _describe_change(recipe: Recipe, found: str) -> str:
    return (
        f"{_name(recipe)} has changed: its sha256 is {found[:SHOWN_DIGITS]}, that of the recipe "
        f"{str(recipe.init_sha256)[:SHOWN_DIGITS]}.\nRestore the weights, or take these with --init-sha256 null."
    )


def _require_fit(recipe: Recipe, source: Source, fit: Fit) -> None:
    if fit.taken and (recipe.init_partial or not fit.misfits):
        return
    known = f" They are weights of {source.architecture}." if source.architecture not in (None, recipe.model) else ""
    remedy = f"--init-partial takes the {len(fit.taken)} tensors that fit." if fit.taken else "No tensor fits."
    raise UserError(
        f"{source.name} does not fit {recipe.model}.{known}\n{describe_misfits(fit.misfits)}\n{remedy}".replace(
            "\n\n", "\n"
        )
    )


def _describe(recipe: Recipe, source: Source, fit: Fit) -> list[str]:
    lines = [f"{len(fit.taken)} tensors from {source.name}, sha256 {source.sha256[:SHOWN_DIGITS]}"]
    if source.layers is not None:
        lines.append(f"the file holds the first {source.layers} layers; the others are made anew")
    if fit.classifier:
        lines.append(f"the classifier is {fit.classifier}")
    if fit.misfits:
        lines.append(f"{len(fit.misfits)} tensors do not fit:\n{tabulate_misfits(fit.misfits)}")
    ours = recipe.preprocess.mean, recipe.preprocess.std
    if source.normalization not in (None, ours):
        mean, std = source.normalization or ours
        lines.append(
            f"the weights were trained with --mean {list(mean)} --std {list(std)}, this run has "
            f"{list(ours[0])} and {list(ours[1])}"
        )
    return lines
