"""The two orders of the 1000 ImageNet classes: darknet's, and the sorted synsets of torchvision, timm and us."""

import json
from functools import cache
from importlib.resources import files

import torch
from timm.data.imagenet_info import ImageNetInfo
from torch import Tensor

CLASSES = 1000


@cache
def class_order() -> Tensor:
    """Return, for each of darknet's classes, its position among the sorted synsets.

    No class has the same position in both orders, so weights need this permutation when they are read.

    Shape:
        (1000,), int64
    """
    text = files("backbones.darknet").joinpath("class_order.json").read_text()
    return torch.tensor(json.loads(text))


def to_sorted(rows: Tensor) -> Tensor:
    """Bring rows from darknet's order of classes into sorted order.

    Shape:
        (1000, ...) -> the same
    """
    return rows[class_order().argsort()]


def to_darknet(rows: Tensor) -> Tensor:
    """Bring rows from sorted order of classes into darknet's order: the inverse of `to_sorted`.

    Shape:
        (1000, ...) -> the same
    """
    return rows[class_order()]


def synsets() -> tuple[str, ...]:
    """Return the names of the 1000 classes in sorted order, which is also the order of their folders."""
    return tuple(ImageNetInfo("imagenet-1k").label_names())
