"""The operations of RandAugment and TrivialAugment in DALI: each image of a batch has its own, given from outside."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import nvidia.dali.math as dali_math
from nvidia.dali import fn, types
from nvidia.dali.auto_aug import augmentations
from nvidia.dali.auto_aug.core import select

from backbones.data.augment.auto_augment import OPERATIONS

FLOAT, INTEGER, BYTE = types.DALIDataType.FLOAT, types.DALIDataType.INT32, types.DALIDataType.UINT8

LIBRARY: Any = augmentations
"""DALI's own augmentations; ``op`` is one without its table of magnitudes. Any: its types are lost in a decorator."""

BLUR = (np.ones((3, 3)) + 4 * np.diag([0, 1, 0])) / 13
"""PIL's smoothing filter, which sharpness moves away from."""

JUST_BELOW_HALF = 0.499
"""Less than half a level, so that a whole number stays as it is when this is subtracted and the rest is rounded."""

KEEP = np.diag([0.0, 1.0, 0.0])
"""The filter that changes nothing."""


def augment(images: Any, operations: Any, amounts: Any, *, size: int) -> Any:
    """Apply to each image the operation of its number, by its amount: one round of a :class:`Choice`.

    For use inside a definition with ``@pipeline_def(enable_conditionals=True)``; without that, DALI refuses to take
    an image's number for a condition. Runs where the images are; numbers and amounts are on the CPU in any case.
    Nothing is random. The mean difference from :func:`apply` is at most 1.1 of 255: for color, contrast, sharpness and
    autocontrast DALI rounds where torchvision truncates, and it sharpens the outermost pixels too.

    Shape: images uint8 (size, size, 3) HWC, operations integer (), amounts float (), for each image -> images.
    """
    branches = _branches(size)
    ordered: list[Any] = [branches[operation.name] for operation in OPERATIONS]
    return select(ordered, operations, images, fn.cast(amounts, dtype=FLOAT))


def _branches(size: int) -> dict[str, Callable[[Any, Any], Any]]:
    """Return for each operation what does it to some of the images: (images, amounts) -> images."""
    return {
        "identity": _identity,
        "shear_x": partial(_shear, row=0, column=1),
        "shear_y": partial(_shear, row=1, column=0),
        "translate_x": partial(_translate, axis=1, size=size),
        "translate_y": partial(_translate, axis=0, size=size),
        "rotate": partial(_rotate, size=size),
        "brightness": _brightness,
        "color": _color,
        "contrast": _contrast,
        "sharpness": _sharpness,
        "posterize": _posterize,
        "solarize": _solarize,
        "autocontrast": LIBRARY.auto_contrast.op,
        "equalize": _equalize,
    }


def _identity(images: Any, _: Any) -> Any:
    return images


def _shear(images: Any, amount: Any, *, row: int, column: int) -> Any:
    change = np.zeros((3, 3))
    change[row, column] = 1
    return _warp(images, _constant(np.eye(3)) + amount * _constant(change))


def _translate(images: Any, amount: Any, *, axis: int, size: int) -> Any:
    """Amounts are whole pixels, so this is a copy, with no need for interpolation."""
    start = fn.stack(fn.cast(-amount, dtype=INTEGER))
    return fn.slice(images, start=start, shape=[size], axes=[axis], out_of_bounds_policy="pad", fill_values=0)


def _rotate(images: Any, amount: Any, *, size: int) -> Any:
    """Turn about the centre; the matrix is a constant, plus another times the cosine, plus a third times the sine."""
    centre, angle = size / 2, amount * (np.pi / 180)
    still = _constant([[0, 0, centre], [0, 0, centre], [0, 0, 1]])
    along = _constant([[1, 0, -centre], [0, 1, -centre], [0, 0, 0]])
    across = _constant([[0, -1, centre], [1, 0, -centre], [0, 0, 0]])
    return _warp(images, still + dali_math.cos(angle) * along + dali_math.sin(angle) * across)


def _warp(images: Any, matrix: Any) -> Any:
    """Sample through a map from output to input. ``warp_affine`` and ``rotate`` take seven times as long on the CPU."""
    return fn.experimental.warp_perspective(
        images, matrix=matrix, border_mode="constant", fill_value=[0.0, 0.0, 0.0], pixel_origin="corner"
    )


def _brightness(images: Any, amount: Any) -> Any:
    """Truncate, as torchvision does: autocontrast would stretch half a level of a dark image to many."""
    return fn.brightness(images, brightness=1 + amount, brightness_shift=-JUST_BELOW_HALF / 255)


def _color(images: Any, amount: Any) -> Any:
    return fn.saturation(images, saturation=1 + amount)


def _contrast(images: Any, amount: Any) -> Any:
    return LIBRARY.contrast.op(images, _beside(images, 1 + amount))


def _sharpness(images: Any, amount: Any) -> Any:
    kernel = _constant(KEEP) + amount * _constant(KEEP - BLUR)
    return fn.filter(images, _beside(images, kernel))


def _posterize(images: Any, amount: Any) -> Any:
    mask = fn.cast(256 - dali_math.pow(2.0, 8 - amount), dtype=BYTE)
    return LIBRARY.posterize.op(images, _beside(images, mask))


def _solarize(images: Any, amount: Any) -> Any:
    return LIBRARY.solarize.op(images, _beside(images, amount))


def _equalize(images: Any, _: Any) -> Any:
    """Equalize the negative: that turns DALI's rule, OpenCV's, into PIL's and torchvision's.

    OpenCV maps a value to the share of pixels up to it, the darkest left out; PIL to the share below it, the brightest
    left out. They differ by tens of levels where many pixels are black, as they are after a rotation.
    """
    return _negative(fn.equalize(_negative(images)))


def _negative(images: Any) -> Any:
    return types.Constant(255, dtype=BYTE) - images


def _beside(images: Any, values: Any) -> Any:
    """Return the values on the device of the images: arithmetic wants its operands in one place."""
    return values.gpu() if images.device == "gpu" else values


def _constant(values: Any) -> Any:
    return types.Constant(np.asarray(values, dtype=np.float32), device="cpu")
