"""One micro-batch through the network before anything is written, so that a network that does not fit is refused."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch
from torch import Tensor, nn

from backbones.assembly.batch_norm import require_bn_batch
from backbones.assembly.network import create_network
from backbones.assembly.request import explain_model_args, without_loading
from backbones.errors import UserError
from backbones.recipe import Recipe, micro_batch

CHANNELS = 3
"""Channels of the images: every loader returns RGB."""


def require_fitting_network(recipe: Recipe, num_classes: int, processes: int) -> None:
    """Raise UserError where the network cannot train on the micro-batches of the recipe.

    Found are a ``bn_batch`` that does not divide them, other ``in_chans``, an image size that a transformer does not
    take, BatchNorm over one value, and an output that is not one row of logits for each image. The network runs without
    data (on torch's meta device), so that this takes neither memory nor random numbers. Only where that fails does a
    real one run, on two images.
    """
    require_bn_batch(recipe, processes)
    images = (micro_batch(recipe, processes), CHANNELS, recipe.img_size, recipe.img_size)
    with suppress(Exception), torch.device("meta"):  # some networks need real numbers
        _require_logits(recipe, _run(_build(recipe, num_classes), images), num_classes)
        return
    with torch.random.fork_rng():
        few = (min(images[0], 2), *images[1:])
        with explain_model_args(recipe):
            model = _build(recipe, num_classes)
        with _explain_images(recipe, few):
            output = _run(model, few)
        _require_logits(recipe, output, num_classes)


def _build(recipe: Recipe, num_classes: int) -> nn.Module:
    return create_network(recipe.model, num_classes=num_classes, **without_loading(recipe.model_args))


def _run(model: nn.Module, images: tuple[int, ...]) -> Tensor:
    """Return what the network returns in training for black images.

    Shape: (N, C, H, W) as a tuple -> (N, num_classes)
    """
    with torch.no_grad():
        return model.train()(torch.zeros(images))


@contextmanager
def _explain_images(recipe: Recipe, images: tuple[int, ...]) -> Iterator[None]:
    """Turn any error of the network into a UserError with the shape of the images."""
    try:
        yield
    except Exception as error:
        said = str(error).strip().partition("\n")[0] or type(error).__name__
        raise UserError(
            f"--model {recipe.model} cannot train on micro-batches of {' x '.join(map(str, images))} "
            f"(images x channels x height x width): {said}\n{_suggest(recipe, said)}"
        ) from error


def _require_logits(recipe: Recipe, output: Tensor, num_classes: int) -> None:
    shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
    if not isinstance(output, Tensor) or output.dim() != 2 or output.shape[1] != num_classes:
        raise UserError(f"--model {recipe.model} returns {shape}, not logits of {num_classes} classes.")


def _suggest(recipe: Recipe, reason: str) -> str:
    """Say which option may help."""
    if "more than 1 value per channel" in reason:
        return "BatchNorm needs more than one value: a larger --batch-size or --img-size, or fewer processes."
    if recipe.model_args.get("in_chans", CHANNELS) != CHANNELS:
        return f"Images have {CHANNELS} channels: leave in_chans out of --model-args."
    return "Another --img-size may help, or what the network needs in --model-args, such as {img_size: N}."
