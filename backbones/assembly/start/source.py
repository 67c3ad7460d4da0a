"""Weights to start from: a checkpoint of ours, a file of timm, a darknet file, or timm's published weights."""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.data.imagenet_info import ImageNetInfo, infer_imagenet_subset
from timm.models import clean_state_dict, load_state_dict
from torch import Tensor, nn

from backbones.assembly.network import create_network
from backbones.assembly.request import without_loading
from backbones.assembly.start.fit import Source
from backbones.darknet import weights as darknet
from backbones.darknet.endings import PARTIAL, is_cfg, is_weights_file
from backbones.darknet.labels import CLASSES, synsets
from backbones.errors import UserError
from backbones.layers.old_names import current_names
from backbones.training.checkpoint import Weights, read_description, require_honest_size
from backbones.training.manifest import hash_of, measure, verify_checkpoint
from backbones.training.run_files import find_checkpoint, weights_file

SAFETENSORS = ".safetensors"
PICKLES = (".pth", ".pt", ".bin", ".pth.tar", ".ckpt")
"""Endings of files that torch.save wrote."""


def find_source(path: str) -> Path:
    """Return the file with weights at ``path``: a file, a checkpoint folder, or a run folder, whose last one counts.

    Of a checkpoint it is the averaged weights, where there are any.

    Raises:
        UserError: there is no such file, a file of the checkpoint is damaged, or the ending is unknown.
    """
    found = find_checkpoint(Path(path))
    if found.is_dir():
        verify_checkpoint(found)
    file = weights_file(found)
    if not is_weights_file(file.name) and not file.name.endswith((SAFETENSORS, *PICKLES)):
        known = ", ".join((SAFETENSORS, *PICKLES, ".weights"))
        raise UserError(f"--init-weights {path}: {file.name} ends in none of {known} and .conv.N.")
    return file


def read_source(file: Path, network: nn.Module, *, may_end_early: bool = False) -> Source:
    """Return the weights in a file of any kind.

    Args:
        file: a result of `find_source`.
        network: the network to train, whose layers a darknet file follows. It is not changed.
        may_end_early: take a ``.weights`` file that ends after one of the layers, too.

    Raises:
        UserError: the file cannot be read, or would run code.
    """
    sha256 = measure(file)["sha256"]
    if is_weights_file(file.name):
        return _read_darknet(file, network, sha256, may_end_early=may_end_early)
    if file.name.endswith(SAFETENSORS):
        return _read_safetensors(file, sha256)
    return Source(str(file), _require_tensors(file, _read_pickle(file)), sha256)


def read_pretrained(name: str, model_args: Mapping[str, Any]) -> Source:
    """Return the weights that timm publishes for a network. The random state of torch is as before.

    Args:
        name: name of the network.
        model_args: its keyword arguments. For other ``in_chans`` timm adapts the stem.

    Raises:
        UserError: there are none, or they cannot be fetched.
    """
    if is_cfg(name):
        raise UserError(f"--pretrained: timm has no weights of {name}. Name darknet's file: --init-weights X.weights.")
    try:
        with torch.random.fork_rng(devices=[]):
            network = create_network(name, pretrained=True, **without_loading(model_args))
    except UserError:
        raise
    except Exception as error:  # a hub fails in many ways
        raise UserError(f"--pretrained: the weights of {name} cannot be had: {' '.join(str(error).split())}") from error
    weights, config = network.state_dict(), cast("dict[str, Any]", network.pretrained_cfg)
    about = {"classes": _published_classes(config), "architecture": name, "normalization": _normalization(config)}
    return Source(f"timm's weights of {name}", weights, hash_of(weights), **about)


def _read_safetensors(file: Path, sha256: str) -> Source:
    """Read a file of ours, which describes itself, or of anyone else."""
    about = read_description(file)
    try:
        weights = current_names(clean_state_dict(load_file(file)))
    except (SafetensorError, OSError) as error:
        raise UserError(f"{file} is not a readable safetensors file: {error}") from None
    if about is None:
        return Source(str(file), weights, sha256)
    return Source(
        str(file),
        weights,
        sha256,
        classes=tuple(about["classes"]),
        architecture=about["architecture"],
        normalization=_normalization(about["preprocess"]),
    )


def _read_pickle(file: Path) -> Any:
    """Return what timm takes as the state in a file of torch.save; the averaged one where there are two."""
    try:
        if zipfile.is_zipfile(file):
            require_honest_size(file)
        return load_state_dict(str(file), use_ema=True, weights_only=True)
    except Exception as error:  # a damaged or hostile file fails anywhere in zipfile, torch and timm
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(f"{file} cannot be read as weights alone: {reason}") from error


def _require_tensors(file: Path, state: Any) -> Weights:
    """Return the state; UserError where it does not map names to tensors."""
    wrong = [name for name, value in state.items() if not isinstance(value, Tensor)]
    if wrong or not state:
        found = f"{wrong[0]} is no tensor" if wrong else "it is empty"
        raise UserError(f"{file} holds no state dict of a network: {found}.")
    return current_names(state)


def _read_darknet(file: Path, network: nn.Module, sha256: str, *, may_end_early: bool) -> Source:
    """Read a file in the layers of ``network``. The names of 1000 classes are known, of others they are not."""
    partial = PARTIAL.search(file.name)
    layers = int(partial[1]) if partial else darknet.find_cutoff(network, file)
    if layers and not partial and not may_end_early:
        raise UserError(
            f"{file} ends after layer {layers - 1}. If that is meant, --init-partial takes it, and so does the name "
            f"{file.stem}.conv.{layers}, as darknet writes it."
        )
    weights = darknet.read_weights(network, file, cutoff=layers)
    is_imagenet = layers is None and len([*weights.values()][-1]) == CLASSES
    return Source(str(file), weights, sha256, classes=synsets() if is_imagenet else None, layers=layers)


def _published_classes(config: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Return the class names of timm's configuration, or those of the part of ImageNet that it stands for."""
    if names := config.get("label_names"):
        return tuple(names)
    subset = infer_imagenet_subset(dict(config))
    return tuple(ImageNetInfo(subset).label_names()) if subset else None


def _normalization(about: Mapping[str, Any]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    return tuple(about["mean"]), tuple(about["std"])
