"""Operations of RandAugment and TrivialAugment in DALI, chosen for each image of a batch from outside."""

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
"""DALI's own augmentations; ``op`` is one without its table of magnitudes. A decorator hides their types: hence Any."""

BLUR = (np.ones((3, 3)) + 4 * np.diag([0, 1, 0])) / 13
"""PIL's smoothing filter, the opposite of sharpness."""

JUST_BELOW_HALF = 0.499
"""Subtracted before rounding, it turns rounding into truncation; below half a level, it keeps whole numbers."""

IDENTITY_FILTER = np.diag([0.0, 1.0, 0.0])
"""Filter that changes nothing."""


def augment(images: Any, operations: Any, amounts: Any, *, size: int) -> Any:
    """Apply one operation to each image, given by number and amount: one round of a :class:`Choice`.

    For use in a ``@pipeline_def(enable_conditionals=True)``; without conditionals, DALI refuses a number per image.
    Runs on the device of the images; numbers and amounts are always on the CPU. Nothing is random. The mean difference
    from :func:`apply` is at most 1.1 of 255: for color, contrast, sharpness and autocontrast, DALI rounds and
    torchvision truncates, and DALI also sharpens the outermost pixels.

    Shape: images uint8 (size, size, 3) HWC, operations integer (), amounts float (), per image -> images.
    """
    branches = _list_branches(size)
    ordered: list[Any] = [branches[operation.name] for operation in OPERATIONS]
    return select(ordered, operations, images, fn.cast(amounts, dtype=FLOAT))


def _list_branches(size: int) -> dict[str, Callable[[Any, Any], Any]]:
    """Return the function of each operation: (some of the images, amounts) -> images."""
    return {
        "identity": lambda images, _: images,
        "shear_x": partial(_shear, row=0, column=1),
        "shear_y": partial(_shear, row=1, column=0),
        "translate_x": partial(_translate, axis=1, size=size),
        "translate_y": partial(_translate, axis=0, size=size),
        "rotate": partial(_rotate, size=size),
        # As in torchvision, brightness truncates: autocontrast would amplify half a level of a dark image to many.
        "brightness": lambda images, x: fn.brightness(
            images, brightness=1 + x, brightness_shift=-JUST_BELOW_HALF / 255
        ),
        "color": lambda images, x: fn.saturation(images, saturation=1 + x),
        "contrast": lambda images, x: LIBRARY.contrast.op(images, _match_device(images, 1 + x)),
        "sharpness": _sharpness,
        "posterize": lambda images, x: LIBRARY.posterize.op(images, _match_device(images, _mask_bits(x))),
        "solarize": lambda images, x: LIBRARY.solarize.op(images, _match_device(images, x)),
        "autocontrast": LIBRARY.auto_contrast.op,
        "equalize": _equalize,
    }


def _shear(images: Any, amount: Any, *, row: int, column: int) -> Any:
    change = np.zeros((3, 3))
    change[row, column] = 1
    return _warp(images, _constant(np.eye(3)) + amount * _constant(change))


def _translate(images: Any, amount: Any, *, axis: int, size: int) -> Any:
    """Copy by whole pixels, without interpolation."""
    start = fn.stack(fn.cast(-amount, dtype=INTEGER))
    return fn.slice(images, start=start, shape=[size], axes=[axis], out_of_bounds_policy="pad", fill_values=0)


def _rotate(images: Any, amount: Any, *, size: int) -> Any:
    """Rotate about the centre. The matrix is a constant + a constant * cosine + a constant * sine."""
    centre, angle = size / 2, amount * (np.pi / 180)
    still = _constant([[0, 0, centre], [0, 0, centre], [0, 0, 1]])
    along = _constant([[1, 0, -centre], [0, 1, -centre], [0, 0, 0]])
    across = _constant([[0, -1, centre], [1, 0, -centre], [0, 0, 0]])
    return _warp(images, still + dali_math.cos(angle) * along + dali_math.sin(angle) * across)


def _warp(images: Any, matrix: Any) -> Any:
    """Sample through a map from output to input. On a CPU, ``warp_affine`` and ``rotate`` take seven times as long."""
    return fn.experimental.warp_perspective(
        images, matrix=matrix, border_mode="constant", fill_value=[0.0, 0.0, 0.0], pixel_origin="corner"
    )


def _sharpness(images: Any, amount: Any) -> Any:
    kernel = _constant(IDENTITY_FILTER) + amount * _constant(IDENTITY_FILTER - BLUR)
    return fn.filter(images, _match_device(images, kernel))


def _mask_bits(amount: Any) -> Any:
    """Return a mask of the highest ``amount`` bits of a byte."""
    return fn.cast(256 - dali_math.pow(2.0, 8 - amount), dtype=BYTE)


def _equalize(images: Any, _: Any) -> Any:
    """Equalize the negative, which turns the rule of DALI and OpenCV into that of PIL and torchvision.

    OpenCV maps a value to the share of pixels up to it, without the darkest; PIL to the share below it, without the
    brightest. They differ by tens of levels where many pixels are black, for example after a rotation.
    """
    return _invert(fn.equalize(_invert(images)))


def _invert(images: Any) -> Any:
    return types.Constant(255, dtype=BYTE) - images


def _match_device(images: Any, values: Any) -> Any:
    """Return the values on the device of the images; DALI's arithmetic needs both on one device."""
    return values.gpu() if images.device == "gpu" else values


def _constant(values: Any) -> Any:
    return types.Constant(np.asarray(values, dtype=np.float32), device="cpu")
