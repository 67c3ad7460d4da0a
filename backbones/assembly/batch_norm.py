"""The images over which batch normalization averages, as a recipe says."""

from torch import nn

from backbones.errors import UserError
from backbones.layers.batch_norm import GroupedBatchNorm2d, PendingStatistics, group_batch_norm, sync_batch_norm
from backbones.models.batch_norm import set_batch_norm
from backbones.recipe import Recipe, micro_batch


def require_bn_batch(recipe: Recipe, processes: int) -> None:
    """Raise UserError where ``bn_batch`` does not divide a micro-batch: a group would lie in two of them."""
    images, each = recipe.optim.bn_batch, micro_batch(recipe, processes)
    if images is not None and each % images:
        raise UserError(
            f"--bn-batch {images} must divide the {each} images of a micro-batch (--batch-size {recipe.batch_size} / "
            f"{processes} processes / --grad-accum-steps {recipe.grad_accum_steps})."
        )


def prepare_batch_norm(model: nn.Module, recipe: Recipe) -> None:
    """Set the momentum of every batch normalization in ``model``, and the images that it averages over.

    Raises:
        UserError: the network has a batch normalization for which ``bn_batch`` or ``sync_bn`` is not known.
    """
    set_batch_norm(model, momentum=recipe.optim.bn_momentum)
    try:
        if recipe.optim.bn_batch is not None:
            group_batch_norm(model, recipe.optim.bn_batch)
        elif recipe.optim.sync_bn:
            sync_batch_norm(model)
    except ValueError as error:
        raise UserError(f"--model {recipe.model}: {error}") from error


def images_of_batch_norm(recipe: Recipe, processes: int) -> int:
    """Return the number of images over which batch normalization averages."""
    each = micro_batch(recipe, processes)
    return recipe.optim.bn_batch or (each * processes if recipe.optim.sync_bn else each)


def pending_statistics(model: nn.Module) -> PendingStatistics:
    """Return what the grouped normalizations of ``model`` add up during a step; there may be none."""
    return PendingStatistics([module for module in model.modules() if isinstance(module, GroupedBatchNorm2d)])
