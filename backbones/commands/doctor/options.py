"""Tell whether the loader or the network is the limit, at which stage, and what to change.

Takes the options of train_imagenet.py and measures their training in one process, for about a minute and a half. Before
that it compares a sample of decoded images with what PIL decodes. Nothing is trained or written. The output belongs in
the report of a problem.
"""

from collections.abc import Sequence
from dataclasses import replace

from backbones import canonical_name
from backbones.assembly.request import require_possible
from backbones.command_line import parse
from backbones.errors import UserError
from backbones.recipe import Recipe


def read_options(arguments: Sequence[str]) -> Recipe:
    """Return the recipe of the command line. Raises UserError where it resumes a run, or is impossible."""
    recipe = parse(Recipe, arguments, prog="python -m backbones doctor", description=__doc__ or "")
    if recipe.resume:
        raise UserError("doctor resumes nothing: measure the recipe of that run with --config RUN/recipe.yaml.")
    require_possible(recipe)
    return replace(recipe, model=canonical_name(recipe.model))
