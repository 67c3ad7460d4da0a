"""A network by the name that a user gives: one of `list_models`, any of timm, or a darknet .cfg file."""

from typing import Any

import torch
from torch import nn

from backbones import create_model
from backbones.darknet.cfg import read_cfg
from backbones.darknet.endings import CFG_HINT, is_cfg
from backbones.darknet.network import load_cfg, require_classifier
from backbones.darknet.shapes import Layer, infer_layers
from backbones.darknet.trace import trace
from backbones.errors import UserError


def create_network(name: str, *, num_classes: int | None = None, **options: Any) -> nn.Module:
    """Build a network; ``num_classes`` None takes what it has by itself.

    Raises:
        UserError: the name is unknown, or the cfg is wrong, is a detector or has another number of classes.
    """
    if is_cfg(name):
        require_classifier(read_cfg(name))
        return load_cfg(name, num_classes=num_classes, **options)
    return (
        create_model(name, **options) if num_classes is None else create_model(name, num_classes=num_classes, **options)
    )


def layers_of(name: str, *, size: int | None = None) -> tuple[Layer, ...]:
    """Return the layers of a network as darknet would have them, without its weights.

    Raises:
        UserError: as for `create_network`, or darknet could not have such a network.
    """
    return infer_layers(read_cfg(name) if is_cfg(name) else trace(_create_without_data(name)).cfg, size=size)


def notes_on(name: str) -> tuple[str, ...]:
    """Return what a cfg says without effect, and where a detector is cut; nothing for the name of a model."""
    if not is_cfg(name):
        return ()
    cfg = read_cfg(name)
    head = cfg.head
    if head is None:
        return cfg.notes
    return *cfg.notes, f"{head.file}:{head.line}: a detector is read up to its first head, [{head.kind}]"


def _create_without_data(name: str) -> nn.Module:
    try:
        with torch.device("meta"):
            return create_model(name)
    except UserError as error:
        raise UserError(f"{error}{CFG_HINT}") from None
