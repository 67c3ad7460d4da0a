"""Conversions of darknet's files into ours and back."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from backbones import canonical_name
from backbones.assembly.cfg_recipe import recipe_text
from backbones.assembly.checkpoint import Restored, input_channels, restore_model
from backbones.assembly.hub import describe_for_timm
from backbones.assembly.network import create_network
from backbones.choices import ClassOrder
from backbones.commands.convert.options import Options, choose_cutoff, choose_kinds
from backbones.darknet.endings import is_cfg, is_weights_file
from backbones.darknet.labels import CLASSES, synsets
from backbones.darknet.network import load_cfg
from backbones.darknet.trace import save_cfg
from backbones.darknet.weights import (
    WeightsHeader,
    load_weights,
    read_weights,
    save_weights,
)
from backbones.errors import UserError
from backbones.files import write_text
from backbones.terminal import write
from backbones.training.checkpoint import pack_config, read_description, write_weights
from backbones.training.run_files import CONFIG, MODEL

_Conversion = Callable[[Options], None]


def run(options: Options) -> None:
    """Convert one file as the options say."""
    _CONVERSIONS[choose_kinds(options)](options)


def to_partial(options: Options) -> None:
    """Write the first layers of a checkpoint or a .weights file, as ``darknet partial`` does: no images seen."""
    cutoff = choose_cutoff(options)
    model, order = _read_first_layers(options, cutoff)
    save_weights(model, options.out, order, cutoff, header=WeightsHeader())
    if options.verify:
        _verify_partial(options, model, order, cutoff)
    _report(options, f"the first {cutoff} layers")


def _read_first_layers(options: Options, cutoff: int | None) -> tuple[nn.Module, ClassOrder]:
    """Return a network with at least the first layers filled, and the order of the classes to write it in."""
    if not is_weights_file(options.source):
        restored = restore_model(options.source, model=options.model, ema=options.ema)
        _require_known_order(options, restored)
        return restored.model, options.class_order
    if options.model is None:
        raise UserError(f"{options.source} does not say what network it holds: add --model NAME.")
    cut = is_cfg(options.model)
    network = load_cfg(options.model, layers=cutoff) if cut else create_network(options.model)
    load_weights(network, options.source, "sorted", cutoff)
    return network, "sorted"


def _verify_partial(options: Options, model: nn.Module, order: ClassOrder, cutoff: int | None) -> None:
    """Raise UserError unless the new file gives back every number of its layers."""
    theirs = model.state_dict()
    for key, value in read_weights(model, options.out, order, cutoff).items():
        if not torch.equal(value, theirs[key].float()):
            raise UserError(f"--verify: {options.out} gives back another {key}.")


def to_checkpoint(options: Options) -> None:
    """Turn a .weights file into a safetensors file with a description."""
    restored = restore_model(options.source, model=options.model, class_order=options.class_order)
    about = _description(restored, options.labels)
    write_weights(Path(options.out), restored.model.state_dict(), about)
    write_timm_config(Path(options.out), restored, about["classes"])
    if options.verify:
        _verify_checkpoint(options, restored)
    _report(options, f"{restored.name}, classes in sorted order")


def write_timm_config(out: Path, restored: Restored, classes: Sequence[str]) -> None:
    """Write timm's config.json beside a file that has the name of weights in timm's folders."""
    about = {"img_size": restored.img_size, "preprocess": restored.preprocess, "model_args": {}}
    config = describe_for_timm(restored.model, classes=classes, **about)
    if out.name == MODEL and config is not None:
        (out.parent / CONFIG).write_bytes(pack_config(config))


def _description(restored: Restored, labels: str | None) -> dict[str, Any]:
    header: WeightsHeader = restored.model.darknet_header  # type: ignore[assignment]
    return {
        "architecture": canonical_name(restored.name),
        "cfg": getattr(restored.model, "cfg_text", None),
        "model_args": {},
        "classes": list(restored.classes or _read_labels(restored, labels)),
        "img_size": restored.img_size,
        "preprocess": asdict(restored.preprocess),
        "channels_last": True,
        "loader": restored.loader,
        "precision": restored.precision,
        "data_dir": None,
        "val_fingerprint": None,
        "darknet": asdict(header),
    }


def _read_labels(restored: Restored, file: str | None) -> list[str]:
    count = restored.model.num_classes
    if file is None:
        raise UserError(f"{restored.name} has {count} classes without known names: add --labels FILE.")
    names = [line.strip() for line in Path(file).read_text().splitlines() if line.strip()]
    if len(names) != count:
        raise UserError(f"--labels {file} has {len(names)} names, but {restored.name} has {count} classes.")
    return names


def to_weights(options: Options) -> None:
    """Turn a checkpoint into a .weights file that darknet reads."""
    restored = restore_model(options.source, model=options.model, ema=options.ema)
    _require_known_order(options, restored)
    save_weights(restored.model, options.out, options.class_order, header=_header(restored.file))
    if options.verify:
        _verify_weights(options, restored)
    _report(options, restored.name)


def _require_known_order(options: Options, restored: Restored) -> None:
    """Raise UserError for 1000 classes that darknet's order does not have."""
    classes = restored.classes
    if options.class_order == "darknet" and classes is not None and len(classes) == CLASSES and classes != synsets():
        raise UserError(f"{restored.file} has 1000 classes that are not ImageNet's: add --class-order sorted.")


def _header(file: Path) -> WeightsHeader:
    about = read_description(file) or {}
    return WeightsHeader(**about["darknet"]) if "darknet" in about else WeightsHeader(seen=about.get("images_seen", 0))


def to_recipe(options: Options) -> None:
    """Turn the ``[net]`` section of a cfg into a recipe."""
    text = recipe_text(options.source)
    if not options.out:
        write(text.removesuffix("\n"))
    else:
        write_text(Path(options.out), text)
        _report(options, "a recipe")


def to_cfg(options: Options) -> None:
    """Write the cfg of a named backbone."""
    save_cfg(create_network(options.source), options.out)
    _report(options, options.source)


_CONVERSIONS: dict[tuple[str, str], _Conversion] = {
    (".weights", ".safetensors"): to_checkpoint,
    ("other", ".weights"): to_weights,
    ("other", "partial"): to_partial,
    (".weights", "partial"): to_partial,
    (".cfg", "recipe"): to_recipe,
    ("other", ".cfg"): to_cfg,
}


def _verify_checkpoint(options: Options, restored: Restored) -> None:
    """Raise UserError unless the new file computes the same, and gives back the old one byte for byte."""
    again = restore_model(options.out, model=options.model)
    _require_same_logits(restored, again)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy.weights"
        save_weights(again.model, copy, options.class_order, header=_header(again.file))
        if copy.read_bytes() != Path(options.source).read_bytes():
            raise UserError(f"--verify: {options.source} cannot be written again from {options.out}.")


def _verify_weights(options: Options, restored: Restored) -> None:
    """Raise UserError unless the new file gives back every number of the network."""
    about = read_description(restored.file) or {}
    network = create_network(restored.name, num_classes=restored.model.num_classes, **about.get("model_args", {}))  # type: ignore[arg-type]
    load_weights(network, options.out, options.class_order)
    theirs = network.state_dict()
    for key, value in restored.model.state_dict().items():
        if "num_batches" not in key and not torch.equal(value.float(), theirs[key]):
            raise UserError(f"--verify: {options.out} gives back another {key}.")


@torch.no_grad()
def _require_same_logits(a: Restored, b: Restored) -> None:
    size, channels = a.img_size, input_channels(a.model)
    image = torch.rand(1, channels, size, size, generator=torch.Generator().manual_seed(0))
    if not torch.equal(a.model.eval()(image), b.model.eval()(image)):
        raise UserError(f"--verify: {b.file} computes other logits than {a.file}.")


def _report(options: Options, what: str) -> None:
    verified = ", verified" if options.verify else ""
    write(f"{options.out}: {what}{verified}")
