"""A network as a checkpoint describes it: built, filled, and with all that is needed to feed it."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import torch
from timm.data.config import resolve_data_config
from torch import nn

from backbones import canonical_name
from backbones.assembly.network import create_network, is_cfg
from backbones.darknet import weights as darknet
from backbones.darknet.cfg import parse_cfg
from backbones.darknet.labels import CLASSES, ClassOrder, synsets
from backbones.darknet.network import DarknetNetwork
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

    @property
    def view(self) -> dict[str, Any]:
        """How an image becomes an input, as it is reported and may be overridden."""
        return {"protocol": self.preprocess.protocol, "img_size": self.img_size} | {
            name: getattr(self.preprocess, name) for name in ("crop_pct", "interpolation")
        }

    def overridden(self, *, img_size: int | None = None, **asked: Any) -> Self:
        """Return the network with another input size and fields of its ``preprocess``; None: as it is.

        Raises ``UserError`` where they do not fit each other or the network.
        """
        changes = {name: value for name, value in asked.items() if value is not None}
        try:
            changed = replace(self, preprocess=replace(self.preprocess, **changes), img_size=img_size or self.img_size)
        except UserError as error:
            recorded = " ".join(f"--{name} {value}" for name, value in self.view.items() if name in asked)
            message = f"{error}\n{self.file} has {recorded}; the options change that."
            raise UserError(message.replace("preprocess.", "--").replace("crop_pct", "crop-pct")) from None
        if img_size is not None:
            _require_fitting_size(changed)
        return changed


def restore_model(
    ckpt: str, *, model: str | None = None, ema: bool = True, class_order: ClassOrder = "darknet"
) -> Restored:
    """Return the network of a checkpoint of ours, or of any weights file whose architecture is ``model``.

    Args:
        ckpt: a run folder, a checkpoint folder, a safetensors file or darknet's ``.weights``.
        model: name of a model or a ``.cfg``, for a file that does not say what it holds.
        ema: take the averaged weights where there are any.
        class_order: of a ``.weights`` file with 1000 classes; the network has them in sorted order.

    Raises ``UserError`` when there is no such checkpoint, or when it is of another architecture.
    """
    if ckpt.endswith(".weights"):
        return _darknet(Path(ckpt), model, class_order)
    file = weights_file(find_checkpoint(Path(ckpt)), ema=ema)
    about = read_description(file)
    if about is None:
        return _foreign(file, model)
    name = _architecture(file, about["architecture"], model)
    network = _recorded_network(file, name, about)
    load_weights(network, file, name=name)
    return Restored(
        model=_ordered(network) if about["channels_last"] else network,
        name=name,
        file=file,
        img_size=about["img_size"],
        preprocess=_recorded_preprocess(about["preprocess"]),
        precision=about["precision"],
        classes=tuple(about["classes"]),
        data_dir=about["data_dir"],
        val_fingerprint=about["val_fingerprint"],
        loader="reference" if about["loader"] == "reference" else "dali",
    )


@torch.inference_mode()
def _require_fitting_size(restored: Restored) -> None:
    """Refuse a size that the network cannot compute, before any image is read for it."""
    size = restored.img_size
    try:
        restored.model.eval()(torch.zeros(1, 3, size, size))
    except (AssertionError, RuntimeError, ValueError) as error:
        raise UserError(f"--eval-size {size}: {restored.name} does not take such images: {error}") from None


def _recorded_network(file: Path, name: str, about: dict[str, Any]) -> nn.Module:
    """Build the network of a checkpoint; one from a cfg comes from the text that the checkpoint holds."""
    if about["cfg"] is None:
        return create_network(name, num_classes=len(about["classes"]), **about["model_args"])
    return DarknetNetwork(parse_cfg(about["cfg"], f"the cfg in {file}"), **about["model_args"])


def _recorded_preprocess(recorded: dict[str, Any]) -> Preprocess:
    """Return what a checkpoint says about its images.

    One without ``protocol`` was written when there was only what is called timm's now; the default is another.
    """
    return Preprocess(**{"protocol": "timm", **{key: _tupled(value) for key, value in recorded.items()}})


def _architecture(file: Path, recorded: str, asked: str | None) -> str:
    """Return the name of the recorded network; a cfg may meanwhile lie elsewhere."""
    if asked is None or canonical_name(asked) == recorded:
        return recorded
    if is_cfg(asked) and is_cfg(recorded):
        return asked
    raise UserError(f"--model {asked}, but {file} holds another architecture: {recorded}.")


def _foreign(file: Path, name: str | None) -> Restored:
    """Return a network whose weights file says nothing about itself."""
    network = create_network(_named(file, name))
    load_weights(network, file, name=str(name))
    return _undescribed(network, file, str(name), classes=None, preprocess=_timm_preprocess(network))


def _darknet(file: Path, name: str | None, class_order: ClassOrder) -> Restored:
    """Return a network from darknet's weights; the 1000 classes are known, others are not."""
    network = create_network(_named(file, name))
    darknet.load_weights(network, file, class_order)
    classes = synsets() if getattr(network, "num_classes", None) == CLASSES else None
    return _undescribed(network, file, str(name), classes=classes, preprocess=Preprocess())


def _named(file: Path, name: str | None) -> str:
    if name is None:
        raise UserError(f"{file} does not say what network it holds: add --model NAME.")
    return name


def _timm_preprocess(network: nn.Module) -> Preprocess:
    """Return what timm knows about the images of a network."""
    config = resolve_data_config({}, model=network)
    return Preprocess(
        protocol="timm",
        crop_pct=config["crop_pct"],
        interpolation="bicubic" if config["interpolation"] == "bicubic" else "bilinear",
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
    )


def _undescribed(
    network: nn.Module, file: Path, name: str, *, classes: tuple[str, ...] | None, preprocess: Preprocess
) -> Restored:
    """Return a filled network with the image size that timm knows for it."""
    return Restored(
        model=_ordered(network),
        name=name,
        file=file,
        img_size=resolve_data_config({}, model=network)["input_size"][-1],
        preprocess=preprocess,
        precision="auto",
        classes=classes,
    )


def _ordered(network: nn.Module) -> nn.Module:
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _tupled(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
