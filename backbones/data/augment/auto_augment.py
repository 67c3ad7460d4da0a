"""RandAugment and TrivialAugment: the operations of each image, their amounts, and torchvision as the reference."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torchvision.transforms.v2.functional as F
from torchvision.transforms import InterpolationMode

from backbones.data.augment.draws import AUTO
from backbones.recipe import InceptionAugment

STRENGTHS = 31
"""Number of strengths, from none to full; RandAugment's magnitude is the position of one."""

OPERATIONS_PER_IMAGE = {"none": 0, "randaugment": 2, "trivialaugment": 1}
"""Option ``auto`` -> number of operations applied to an image, one after the other."""

Pair = tuple[float, float]


class Range(NamedTuple):
    """Amounts at no strength and at full strength."""

    none: float
    full: float
    per_side: bool = False
    """The amounts are shares of the image's side, not pixels."""


@dataclass(frozen=True)
class Operation:
    """An operation; its ranges are torchvision's."""

    name: str
    randaugment: Range
    trivialaugment: Range
    signed: bool = False
    """Half of the amounts are negative, by chance."""
    whole: Callable[[np.ndarray], np.ndarray] = np.positive
    """Rounding of amounts that must be whole numbers."""


NO_AMOUNT = Range(0, 0)

OPERATIONS = (
    # name, range of RandAugment, range of TrivialAugment
    Operation("identity", NO_AMOUNT, NO_AMOUNT),
    Operation("shear_x", Range(0, 0.3), Range(0, 0.99), signed=True),
    Operation("shear_y", Range(0, 0.3), Range(0, 0.99), signed=True),
    Operation("translate_x", Range(0, 150 / 331, per_side=True), Range(0, 32), signed=True, whole=np.trunc),
    Operation("translate_y", Range(0, 150 / 331, per_side=True), Range(0, 32), signed=True, whole=np.trunc),
    Operation("rotate", Range(0, 30), Range(0, 135), signed=True),
    Operation("brightness", Range(0, 0.9), Range(0, 0.99), signed=True),
    Operation("color", Range(0, 0.9), Range(0, 0.99), signed=True),
    Operation("contrast", Range(0, 0.9), Range(0, 0.99), signed=True),
    Operation("sharpness", Range(0, 0.9), Range(0, 0.99), signed=True),
    Operation("posterize", Range(8, 4), Range(8, 2), whole=np.rint),
    Operation("solarize", Range(255, 0), Range(255, 0)),
    Operation("autocontrast", NO_AMOUNT, NO_AMOUNT),
    Operation("equalize", NO_AMOUNT, NO_AMOUNT),
)
"""All are equally likely. Units: shear in pixels per pixel (output x is x + amount * y); translate in pixels to the
right or down; rotate in degrees counter-clockwise; brightness, color, contrast and sharpness multiply by 1 + amount;
posterize keeps ``amount`` bits; solarize inverts values from ``amount`` on."""


class Choice(NamedTuple):
    """Operations of N images in K rounds.

    Shape: operation (N, K) int64 positions in OPERATIONS; amount (N, K) float64, signed, in the unit of the operation;
    float32 holds it without loss.
    """

    operation: np.ndarray
    amount: np.ndarray


def choose(draws: np.ndarray, inception: InceptionAugment, *, size: int) -> Choice:
    """Turn uniform draws into operations for images of size x size pixels.

    RandAugment (Cubuk et al., arXiv:1909.13719) takes two operations of the strength ``inception.magnitude``,
    TrivialAugment (Müller and Hutter, arXiv:2103.10158) one of a random strength, from wider ranges. Half of the
    signed amounts are negative.

    Shape: (N, DRAWS) in [0, 1) -> K = 2 for randaugment, 1 for trivialaugment, 0 for none.
    """
    rounds = OPERATIONS_PER_IMAGE[inception.auto]
    number, strength, sign = np.moveaxis(draws[:, AUTO].reshape(len(draws), 2, 3)[:, :rounds], 2, 0)
    operation = np.floor(number * len(OPERATIONS)).astype(np.int64)
    is_random = inception.auto == "trivialaugment"
    bins = (
        np.floor(strength * STRENGTHS).astype(np.int64) if is_random else np.full_like(operation, inception.magnitude)
    )
    is_signed = np.array([each.signed for each in OPERATIONS])
    signs = np.where(is_signed[operation] & (sign < 0.5), -1, 1)
    return Choice(operation, signs * amounts(inception, size=size)[operation, bins])


def amounts(inception: InceptionAugment, *, size: int) -> np.ndarray:
    """Return the amount of each operation at each strength, without sign, from the ranges of ``inception.auto``.

    Computed in float32, as in torchvision and DALI, before they are rounded to whole numbers.

    Shape: (operations, STRENGTHS) float64.
    """
    table = np.zeros((len(OPERATIONS), STRENGTHS))
    for line, operation in zip(table, OPERATIONS, strict=True):
        limits = operation.randaugment if inception.auto == "randaugment" else operation.trivialaugment
        unit = size if limits.per_side else 1
        line[:] = operation.whole(np.linspace(limits.none * unit, limits.full * unit, STRENGTHS, dtype=np.float32))
    return table


def apply(image: torch.Tensor, operation: int, amount: float) -> torch.Tensor:
    """Return the image after one operation, as in torchvision's RandAugment with bilinear interpolation.

    Areas from outside of the image are black; in timm they have the mean colour.

    Shape: uint8 (3, H, W) -> the same.
    """
    return REFERENCE[OPERATIONS[operation].name](image, amount)


def _affine(image: torch.Tensor, *, shear: Pair = (0, 0), shift: Pair = (0, 0)) -> torch.Tensor:
    """Shear by tangents (x, y), about the top left corner, or shift by pixels (x, y)."""
    return F.affine(
        image,
        angle=0,
        translate=list(shift),
        scale=1,
        shear=[math.degrees(math.atan(tangent)) for tangent in shear],
        interpolation=InterpolationMode.BILINEAR,
        center=[0, 0],
    )


REFERENCE: dict[str, Callable[[torch.Tensor, float], torch.Tensor]] = {
    "identity": lambda image, _: image,
    "shear_x": lambda image, amount: _affine(image, shear=(amount, 0)),
    "shear_y": lambda image, amount: _affine(image, shear=(0, amount)),
    "translate_x": lambda image, amount: _affine(image, shift=(amount, 0)),
    "translate_y": lambda image, amount: _affine(image, shift=(0, amount)),
    "rotate": lambda image, amount: F.rotate(image, amount, interpolation=InterpolationMode.BILINEAR),
    "brightness": lambda image, amount: F.adjust_brightness(image, 1 + amount),
    "color": lambda image, amount: F.adjust_saturation(image, 1 + amount),
    "contrast": lambda image, amount: F.adjust_contrast(image, 1 + amount),
    "sharpness": lambda image, amount: F.adjust_sharpness(image, 1 + amount),
    "posterize": lambda image, amount: F.posterize(image, int(amount)),
    "solarize": F.solarize,
    "autocontrast": lambda image, _: F.autocontrast(image),
    "equalize": lambda image, _: F.equalize(image),
}
"""Each operation of the table, by torchvision."""
