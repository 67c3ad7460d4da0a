"""``python -m backbones convert``: darknet's files into ours and back.

convert a.weights --model NAME --out b.safetensors [--verify]
convert RUN|b.safetensors --out a.weights [--verify]
convert X.cfg --recipe [--out r.yaml]
convert NAME --out X.cfg
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from backbones import canonical_name
from backbones.assembly.cfg_recipe import recipe_text
from backbones.assembly.checkpoint import Restored, restore_model
from backbones.assembly.network import create_network
from backbones.darknet.labels import synsets
from backbones.darknet.trace import save_cfg
from backbones.darknet.weights import WeightsHeader, load_weights, save_weights
from backbones.errors import UserError, require_folder_for
from backbones.training.checkpoint import read_description, write_weights


def main(arguments: Sequence[str]) -> None:
    """Convert one file as the command line says."""
    options = _parser().parse_args(arguments)
    _chosen(options)(options)


def _parser() -> argparse.ArgumentParser:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m backbones convert", description=__doc__, formatter_class=formatter)
    parser.add_argument("source", help="a .weights or .cfg file, a checkpoint, or the name of a backbone")
    parser.add_argument("--out", help="file to write: *.safetensors, *.weights, *.cfg, or *.yaml with --recipe")
    parser.add_argument("--model", help="name of the backbone, or its .cfg, that a .weights file holds")
    parser.add_argument("--recipe", action="store_true", help="turn the [net] section of a .cfg into a recipe")
    parser.add_argument("--verify", action="store_true", help="read what was written and compare")
    order = "order of the 1000 classes in the .weights file (default: %(default)s)"
    parser.add_argument("--class-order", choices=("darknet", "sorted"), default="darknet", help=order)
    parser.add_argument("--labels", help="text file with one class name per line, where there are not 1000")
    parser.add_argument("--no-ema", action="store_true", help="take the last weights, not the averaged ones")
    return parser


_Action = Callable[[argparse.Namespace], None]


def _chosen(options: argparse.Namespace) -> _Action:
    if options.out is None and not options.recipe:
        raise UserError("--out is missing: name the file to write.")
    source = Path(options.source).suffix
    target = "recipe" if options.recipe else Path(str(options.out)).suffix
    kind = source if source in (".weights", ".cfg") else "other"
    if (kind, target) not in _ACTIONS:
        ways = "a .weights becomes a .safetensors, a checkpoint a .weights, a .cfg a --recipe, a backbone's name a .cfg"
        raise UserError(f"convert {options.source} to {options.out or 'a recipe'}: {ways}.")
    require_folder_for("--out", options.out)
    if options.labels is not None and not Path(options.labels).is_file():
        raise UserError(f"--labels {options.labels}: there is no such file.")
    return _ACTIONS[kind, target]


def to_checkpoint(options: argparse.Namespace) -> None:
    """Turn a .weights file into a safetensors file that says what it holds."""
    restored = restore_model(options.source, model=options.model, class_order=options.class_order)
    write_weights(Path(options.out), restored.model.state_dict(), _description(restored, options.labels))
    if options.verify:
        _verify_checkpoint(options, restored)
    _say(options, f"{restored.name}, classes in sorted order")


def _description(restored: Restored, labels: str | None) -> dict[str, object]:
    header: WeightsHeader = restored.model.darknet_header  # type: ignore[assignment]
    return {
        "architecture": canonical_name(restored.name),
        "cfg": getattr(restored.model, "cfg_text", None),
        "model_args": {},
        "classes": list(restored.classes or _labels(restored, labels)),
        "img_size": restored.img_size,
        "preprocess": asdict(restored.preprocess),
        "channels_last": True,
        "loader": restored.loader,
        "precision": restored.precision,
        "data_dir": None,
        "val_fingerprint": None,
        "darknet": asdict(header),
    }


def _labels(restored: Restored, file: str | None) -> list[str]:
    count = restored.model.num_classes
    if file is None:
        raise UserError(f"{restored.name} has {count} classes without known names: add --labels FILE.")
    names = [line.strip() for line in Path(file).read_text().splitlines() if line.strip()]
    if len(names) != count:
        raise UserError(f"--labels {file} has {len(names)} names, but {restored.name} has {count} classes.")
    return names


def to_weights(options: argparse.Namespace) -> None:
    """Turn a checkpoint into a .weights file that darknet reads."""
    restored = restore_model(options.source, model=options.model, ema=not options.no_ema)
    classes = restored.classes
    if options.class_order == "darknet" and classes is not None and len(classes) == 1000 and classes != synsets():
        raise UserError(
            f"{restored.file} has 1000 classes of its own, darknet's order is ImageNet's: add --class-order sorted."
        )
    save_weights(restored.model, options.out, options.class_order, header=_header(restored.file))
    if options.verify:
        _verify_weights(options, restored)
    _say(options, restored.name)


def _header(file: Path) -> WeightsHeader:
    about = read_description(file) or {}
    return WeightsHeader(**about["darknet"]) if "darknet" in about else WeightsHeader(seen=about.get("images_seen", 0))


def to_recipe(options: argparse.Namespace) -> None:
    """Turn the ``[net]`` section of a cfg into a recipe."""
    text = recipe_text(options.source)
    if options.out is None:
        sys.stdout.write(text)
    else:
        Path(options.out).write_text(text)
        _say(options, "a recipe")


def to_cfg(options: argparse.Namespace) -> None:
    """Write the cfg of a named backbone."""
    save_cfg(create_network(options.source), options.out)
    _say(options, options.source)


_ACTIONS: dict[tuple[str, str], _Action] = {
    (".weights", ".safetensors"): to_checkpoint,
    ("other", ".weights"): to_weights,
    (".cfg", "recipe"): to_recipe,
    ("other", ".cfg"): to_cfg,
}


def _verify_checkpoint(options: argparse.Namespace, restored: Restored) -> None:
    """Compare what the new file computes, and whether the old one can be written from it byte for byte."""
    again = restore_model(options.out, model=options.model)
    _require_same_logits(restored, again)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy.weights"
        save_weights(again.model, copy, options.class_order, header=_header(again.file))
        if copy.read_bytes() != Path(options.source).read_bytes():
            raise UserError(f"--verify: {options.source} cannot be written again from {options.out}.")


def _verify_weights(options: argparse.Namespace, restored: Restored) -> None:
    """Compare every number of the network with what the new file gives back."""
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


def _say(options: argparse.Namespace, what: str) -> None:
    verified = ", verified" if options.verify else ""
    sys.stdout.write(f"{options.out}: {what}{verified}\n")
