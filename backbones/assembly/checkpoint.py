"""A checkpoint back to a network: built, filled, and with all that is needed to feed it."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, Self

import torch
from timm.data.config import resolve_data_config
from torch import nn

from backbones import canonical_name
from backbones.assembly.network import create_network
from backbones.assembly.request import without_loading
from backbones.choices import ClassOrder
from backbones.darknet import weights as darknet
from backbones.darknet.cfg import parse_cfg
from backbones.darknet.endings import PARTIAL, is_cfg, is_weights_file
from backbones.darknet.labels import CLASSES, synsets
from backbones.darknet.network import DarknetNetwork
from backbones.errors import UserError
from backbones.layers.old_names import current_names
from backbones.recipe import Interpolation, LayoutName, LoaderName, Precision, Preprocess
from backbones.recipe import Protocol as Resize
from backbones.training.checkpoint import load_weights, read_description
from backbones.training.run_files import find_checkpoint, weights_file

LATER_FIELDS: dict[str, Any] = {"layout": None, "tf32": None, "fold": False}
"""Fields of a description that earlier versions did not write, and their values."""


class InputOptions(Protocol):
    """Options of a command line that decide how an image becomes an input; None keeps the checkpoint's."""

    @property
    def eval_size(self) -> int | None:
        """Height and width of the input in pixels."""
        ...

    @property
    def protocol(self) -> Resize | None:
        """Resize and crop."""
        ...

    @property
    def crop_pct(self) -> float | None:
        """Side of the centre crop / short side of the resized image."""
        ...

    @property
    def interpolation(self) -> Interpolation | None:
        """Filter of the resize."""
        ...


@dataclass(frozen=True, eq=False)
class Restored:
    """A network with its weights and the preprocessing that its images need."""

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
    """Class names in the order of the logits; None where they are unknown."""
    data_dir: str | None = None
    """Data set of the training."""
    layout: LayoutName | None = None
    """Layout of that data set, where it was chosen."""
    val_fingerprint: str | None = None
    """Fingerprint of the validation images used for the recorded figures."""
    tf32: bool | None = None
    """Products of float32 in TF32 on a GPU; None where it is not recorded."""
    fold: bool = False
    """The recorded figures are those of the network with batch normalization folded."""
    loader: LoaderName = "dali"
    """Image loader of the training."""

    @property
    def input_options(self) -> dict[str, Any]:
        """Options that decide how an image becomes an input, by name; eval.py may override them."""
        return {"protocol": self.preprocess.protocol, "img_size": self.img_size} | {
            name: getattr(self.preprocess, name) for name in ("crop_pct", "interpolation")
        }

    def as_asked(self, options: InputOptions) -> Self:
        """Return the network with the input options of a command line, see `override`."""
        return self.override(
            img_size=options.eval_size,
            protocol=options.protocol,
            crop_pct=options.crop_pct,
            interpolation=options.interpolation,
        )

    def override(self, *, img_size: int | None = None, **asked: Any) -> Self:
        """Return the network with other input options; None keeps one as it is.

        Raises ``UserError`` where they fit neither each other nor the network.
        """
        changes = {name: value for name, value in asked.items() if value is not None}
        try:
            changed = replace(self, preprocess=replace(self.preprocess, **changes), img_size=img_size or self.img_size)
        except UserError as error:
            recorded = " ".join(f"--{name} {value}" for name, value in self.input_options.items() if name in asked)
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
        ckpt: a run folder, a checkpoint folder, a safetensors file, or darknet's ``.weights`` or ``.conv.N``.
        model: name of a model or a ``.cfg``, for a file that does not say what it holds.
        ema: take the averaged weights where there are any.
        class_order: of a ``.weights`` file with 1000 classes; the network has them in sorted order.

    Raises ``UserError`` when there is no such checkpoint, or when it is of another architecture.
    """
    if is_weights_file(ckpt):
        return _restore_darknet(Path(ckpt), model, class_order)
    file = weights_file(find_checkpoint(Path(ckpt)), ema=ema)
    about = read_description(file)
    if about is None:
        return _restore_foreign(file, model)
    name = _choose_name(file, about["architecture"], model)
    network = _build_recorded(file, name, about)
    load_weights(network, file, name=name, current_names=current_names)
    return Restored(
        model=_in_channels_last(network) if about["channels_last"] else network,
        name=name,
        file=file,
        img_size=about["img_size"],
        preprocess=_read_preprocess(about["preprocess"]),
        precision=about["precision"],
        classes=tuple(about["classes"]),
        data_dir=about["data_dir"],
        val_fingerprint=about["val_fingerprint"],
        **{name: about.get(name, value) for name, value in LATER_FIELDS.items()},
        loader="reference" if about["loader"] == "reference" else "dali",
    )


@torch.inference_mode()
def _require_fitting_size(restored: Restored) -> None:
    """Refuse a size that the network cannot compute, before any image is read for it."""
    size = restored.img_size
    try:
        restored.model.eval()(torch.zeros(1, input_channels(restored.model), size, size))
    except (AssertionError, RuntimeError, ValueError) as error:
        raise UserError(f"--eval-size {size}: {restored.name} does not take such images: {error}") from None


def input_channels(network: nn.Module) -> int:
    """Return the number of channels of the images that a network takes."""
    return resolve_data_config({}, model=network)["input_size"][0]


def _build_recorded(file: Path, name: str, about: dict[str, Any]) -> nn.Module:
    """Build the network of a checkpoint. One from a cfg is built from the text in the checkpoint."""
    if about["cfg"] is None:
        return create_network(name, num_classes=len(about["classes"]), **without_loading(about["model_args"]))
    return DarknetNetwork(parse_cfg(about["cfg"], f"the cfg in {file}"), **about["model_args"])


def _read_preprocess(recorded: dict[str, Any]) -> Preprocess:
    """Return the preprocessing that a checkpoint records. Early checkpoints name no protocol: theirs is timm."""
    options = {key: tuple(value) if isinstance(value, list) else value for key, value in recorded.items()}
    return Preprocess(**{"protocol": "timm", **options})


def _choose_name(file: Path, recorded: str, asked: str | None) -> str:
    """Return the name of the recorded network; a cfg file may have moved."""
    if asked is None or canonical_name(asked) == recorded:
        return recorded
    if is_cfg(asked) and is_cfg(recorded):
        return asked
    raise UserError(f"--model {asked}, but {file} holds another architecture: {recorded}.")


def _restore_foreign(file: Path, name: str | None) -> Restored:
    """Return a network from a weights file without a description, such as timm's."""
    network = create_network(_require_name(file, name))
    load_weights(network, file, name=str(name), current_names=current_names)
    return _describe(network, file, str(name), classes=None, preprocess=_timm_preprocess(network))


def _restore_darknet(file: Path, name: str | None, class_order: ClassOrder) -> Restored:
    """Return a network from darknet's weights. The names of 1000 classes are known, of others they are not."""
    network = create_network(_require_name(file, name))
    partial = PARTIAL.search(file.name)
    cutoff = int(partial[1]) if partial else None
    if cutoff is not None and not darknet.holds_all_layers(network, cutoff):
        raise UserError(
            f"{file} holds the first {cutoff} layers of {name} and no classifier. Train one with --init-weights {file}."
        )
    darknet.load_weights(network, file, class_order, cutoff)
    classes = synsets() if getattr(network, "num_classes", None) == CLASSES else None
    return _describe(network, file, str(name), classes=classes, preprocess=Preprocess())


def _require_name(file: Path, name: str | None) -> str:
    if name is None:
        raise UserError(f"{file} does not say what network it holds: add --model NAME.")
    return name


def _timm_preprocess(network: nn.Module) -> Preprocess:
    """Return timm's preprocessing of a network."""
    config = resolve_data_config({}, model=network)
    return Preprocess(
        protocol="timm",
        crop_pct=config["crop_pct"],
        interpolation="bicubic" if config["interpolation"] == "bicubic" else "bilinear",
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
    )


def _describe(
    network: nn.Module, file: Path, name: str, *, classes: tuple[str, ...] | None, preprocess: Preprocess
) -> Restored:
    """Return a filled network with timm's image size for it."""
    return Restored(
        model=_in_channels_last(network),
        name=name,
        file=file,
        img_size=resolve_data_config({}, model=network)["input_size"][-1],
        preprocess=preprocess,
        precision="auto",
        classes=classes,
    )


def _in_channels_last(network: nn.Module) -> nn.Module:
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
