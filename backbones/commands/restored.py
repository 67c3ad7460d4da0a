"""A network as a checkpoint describes it: built, filled, and with all that is needed to feed it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from timm.data.config import resolve_data_config
from torch import nn

from backbones import create_model
from backbones.errors import UserError
from backbones.recipe import LoaderName, Precision, Preprocess
from backbones.training.checkpoint import find_checkpoint, load_weights, read_description, weights_file


@dataclass(frozen=True, eq=False)
class Restored:
    """A network with its weights, in the memory order it was trained in, and how it wants its images."""

    model: nn.Module
    name: str
    """Architecture."""
    file: Path
    """The weights file."""
    img_size: int
    """Height and width of the input in pixels."""
    preprocess: Preprocess
    precision: Precision
    classes: tuple[str, ...] | None
    """Class names in the order of the logits; None where the file does not say."""
    data_dir: str | None = None
    """The data set that the network was trained on."""
    val_fingerprint: str | None = None
    """Of the validation images that its figures were measured on."""
    loader: LoaderName = "dali"
    """Who decoded them."""


def restore_model(ckpt: str, *, model: str | None = None, ema: bool = True) -> Restored:
    """Return the network of a checkpoint of ours, or of any weights file whose architecture is ``model``.

    Raises ``UserError`` when there is no such checkpoint, or when it is of another architecture.
    """
    file = weights_file(find_checkpoint(Path(ckpt)), ema=ema)
    about = read_description(file)
    if about is None:
        return _foreign(file, model)
    if model is not None and model != about["architecture"]:
        raise UserError(f"--model {model}, but {file} holds another architecture: {about['architecture']}.")
    network = create_model(about["architecture"], num_classes=len(about["classes"]), **about["model_args"])
    preprocess = Preprocess(**{key: _tupled(value) for key, value in about["preprocess"].items()})
    return Restored(
        model=_filled(network, file, about["architecture"], channels_last=about["channels_last"]),
        name=about["architecture"],
        file=file,
        img_size=about["img_size"],
        preprocess=preprocess,
        precision=about["precision"],
        classes=tuple(about["classes"]),
        data_dir=about["data_dir"],
        val_fingerprint=about["val_fingerprint"],
        loader="reference" if about["loader"] == "reference" else "dali",
    )


def _foreign(file: Path, name: str | None) -> Restored:
    """Return a network whose weights file says nothing about itself, with timm's settings for it."""
    if name is None:
        raise UserError(f"{file} does not say what network it holds: add --model NAME.")
    network = create_model(name)
    config = resolve_data_config({}, model=network)
    preprocess = Preprocess(
        crop_pct=config["crop_pct"],
        interpolation="bicubic" if config["interpolation"] == "bicubic" else "bilinear",
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
    )
    return Restored(
        model=_filled(network, file, name, channels_last=True),
        name=name,
        file=file,
        img_size=config["input_size"][-1],
        preprocess=preprocess,
        precision="auto",
        classes=None,
    )


def _filled(network: nn.Module, file: Path, name: str, *, channels_last: bool) -> nn.Module:
    load_weights(network, file, name=name)
    return network.to(memory_format=torch.channels_last) if channels_last else network  # type: ignore[call-overload]


def _tupled(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
