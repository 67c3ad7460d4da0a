"""scikit-learn's 1,797 handwritten digits as a folder of JPEG files: a real data set that needs no download."""

import re
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from backbones.errors import UserError
from backbones.files import new_folder, require_output_folder

SIDE = 32
"""Height and width of the files in pixels; the originals are 8 x 8."""

COUNTS = {"train": 1437, "val": 360}
"""Images of each split: every fifth is for validation."""

MAX_BRIGHTNESS = 16
"""White in scikit-learn's images."""

OWN_PATHS = re.compile(r"(train|val)(/\d(/\d{4}\.jpg)?)?")
"""Paths that this module writes, relative to the output folder."""


def write_digits(output: str | Path) -> Path:
    """Write ``output``/{train,val}/DIGIT/NUMBER.jpg unless all of them are there; return ``output``.

    The split is always the same, with every digit in proportion. The folder appears whole or not at all. Raises
    UserError where ``output`` holds other files or cannot be written, or without scikit-learn.
    """
    output = Path(output).expanduser()
    if _is_complete(output):
        return output
    _require_own(output)
    require_output_folder("--output", output)
    images, labels = _load()
    with new_folder(output) as folder:
        _write(folder, images, labels)
    return output


def split(labels: np.ndarray) -> dict[str, np.ndarray]:
    """Return the rows of each split: every fifth image, counted through one digit after the other, is for validation.

    Shape: labels (N,) -> rows of train and of val, N together.
    """
    order = np.argsort(labels, kind="stable")
    is_val = np.arange(len(labels)) % 5 == 0
    return {"train": np.sort(order[~is_val]), "val": np.sort(order[is_val])}


def _is_complete(output: Path) -> bool:
    return all(len(list(output.glob(f"{name}/[0-9]/*.jpg"))) == count for name, count in COUNTS.items())


def _require_own(output: Path) -> None:
    """Raise UserError where ``output`` holds anything but digits, which writing them again would delete."""
    for path in output.rglob("*"):
        if not OWN_PATHS.fullmatch(path.relative_to(output).as_posix()):
            raise UserError(f"{output} holds files other than digits: {path}.\nChoose another --output.")


def _load() -> tuple[np.ndarray, np.ndarray]:
    """Return images (1797, 8, 8) in [0, 16] and labels (1797,)."""
    try:
        from sklearn.datasets import load_digits  # noqa: PLC0415  # an optional package, only for the demo
    except ModuleNotFoundError as error:
        raise UserError("The digits come with scikit-learn.\nInstall it with pip install 'backbones[demo]'.") from error
    data: Any = load_digits()
    return data.images, data.target


def _write(folder: Path, images: np.ndarray, labels: np.ndarray) -> None:
    for name, rows in split(labels).items():
        for row in rows:
            path = folder / name / str(labels[row]) / f"{row:04d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.round(images[row] * (255 / MAX_BRIGHTNESS)).astype(np.uint8)
            image = Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
            image.convert("RGB").save(path, quality=95)
