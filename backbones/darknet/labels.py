"""Darknet's order of the 1000 ImageNet classes, and the sorted-synset order of torchvision, timm and this package."""

import json
from functools import cache
from importlib.resources import files
from typing import Literal

import torch
from timm.data.imagenet_info import ImageNetInfo
from torch import Tensor

ClassOrder = Literal["darknet", "sorted"]
CLASSES = 1000


@cache
def class_order() -> Tensor:
    """Return for each of darknet's classes its position among the sorted synsets.

    The two orders agree nowhere: a network read without this permutation has nearly no hit.

    Shape:
        (1000,), int64
    """
    text = files("backbones.darknet").joinpath("class_order.json").read_text()
    return torch.tensor(json.loads(text))


def to_sorted(rows: Tensor) -> Tensor:
    """Bring rows that stand in darknet's order of classes into sorted order.

    Shape:
        (1000, ...) -> the same
    """
    return rows[class_order().argsort()]


def to_darknet(rows: Tensor) -> Tensor:
    """Bring rows that stand in sorted order of classes into darknet's order: undoes `to_sorted`.

    Shape:
        (1000, ...) -> the same
    """
    return rows[class_order()]


def synsets() -> tuple[str, ...]:
    """Return the names of the 1000 classes in sorted order, which is also the order of their folders."""
    return tuple(ImageNetInfo("imagenet-1k").label_names())
