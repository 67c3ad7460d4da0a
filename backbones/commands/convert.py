"""Convert darknet's files into ours and back.

convert a.weights --model NAME --out b.safetensors [--verify]
convert RUN|b.safetensors --out a.weights [--verify]
convert X.cfg --recipe [--out r.yaml]
convert NAME --out X.cfg
"""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from backbones import canonical_name
from backbones.assembly.cfg_recipe import recipe_text
from backbones.assembly.checkpoint import Restored, restore_model
from backbones.assembly.hub import describe_for_timm
from backbones.assembly.network import create_network
from backbones.command_line import parse
from backbones.darknet.labels import CLASSES, ClassOrder, synsets
from backbones.darknet.trace import save_cfg
from backbones.darknet.weights import WeightsHeader, load_weights, save_weights
from backbones.errors import UserError
from backbones.files import require_output_file, write_text
from backbones.terminal import write
from backbones.training.checkpoint import CONFIG, MODEL, pack_config, read_description, write_weights


@dataclass(frozen=True)
class Options:
    """Options of `convert`."""

    source: str = field(metadata={"positional": "SOURCE"})
    """A .weights or .cfg file, a checkpoint, or the name of a backbone."""
    out: str = ""
    """File to write: *.safetensors, *.weights, *.cfg, or *.yaml with --recipe, which is printed without it."""
    model: str | None = None
    """Name of the backbone in a .weights file, or its .cfg."""
    recipe: bool = False
    """Turn the [net] section of a .cfg into a recipe."""
    verify: bool = False
    """Read the new file and compare."""
    class_order: ClassOrder = "darknet"
    """Order of the 1000 classes in the .weights file."""
    labels: str | None = None
    """Text file with one class name per line, for a network without ImageNet's 1000 classes."""
    ema: bool = True
    """Use the averaged weights where there are any; --no-ema: the last weights."""


def main(arguments: Sequence[str]) -> None:
    """Convert one file as the command line says."""
    options = parse(Options, arguments, prog="python -m backbones convert", description=__doc__ or "")
    choose_conversion(options)(options)


_Conversion = Callable[[Options], None]


def choose_conversion(options: Options) -> _Conversion:
    """Return the conversion for the endings of the files; UserError where there is none."""
    if not options.out and not options.recipe:
        raise UserError("--out is missing: name the file to write.")
    source = Path(options.source).suffix
    target = "recipe" if options.recipe else Path(options.out).suffix
    kind = source if source in (".weights", ".cfg") else "other"
    if (kind, target) not in _CONVERSIONS:
        ways = "a .weights becomes a .safetensors, a checkpoint a .weights, a .cfg a --recipe, a backbone's name a .cfg"
        raise UserError(f"convert {options.source} to {options.out or 'a recipe'}: {ways}.")
    require_output_file("--out", options.out or None)
    if options.labels is not None and not Path(options.labels).is_file():
        raise UserError(f"--labels {options.labels}: there is no such file.")
    return _CONVERSIONS[kind, target]


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
    classes = restored.classes
    if options.class_order == "darknet" and classes is not None and len(classes) == CLASSES and classes != synsets():
        raise UserError(f"{restored.file} has 1000 classes that are not ImageNet's: add --class-order sorted.")
    save_weights(restored.model, options.out, options.class_order, header=_header(restored.file))
    if options.verify:
        _verify_weights(options, restored)
    _report(options, restored.name)


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
    size = a.img_size
    image = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    if not torch.equal(a.model.eval()(image), b.model.eval()(image)):
        raise UserError(f"--verify: {b.file} computes other logits than {a.file}.")


def _report(options: Options, what: str) -> None:
    verified = ", verified" if options.verify else ""
    write(f"{options.out}: {what}{verified}")
