"""JPEG files for loaders: noise with the spectrum of photographs."""

from pathlib import Path

import numpy as np
from PIL import Image


def write_photos(folder: Path, count: int) -> None:
    """Write ``count`` JPEG files of 500 x 375 pixels with the spectrum of photographs."""
    rng = np.random.default_rng(0)
    fall = np.sqrt(np.fft.fftfreq(375)[:, None] ** 2 + np.fft.rfftfreq(500) ** 2)
    fall[0, 0] = 1
    for number in range(count):
        waves = rng.normal(size=(3, *fall.shape)) + 1j * rng.normal(size=(3, *fall.shape))
        planes = np.fft.irfft2(waves / fall**0.9, s=(375, 500)).transpose(1, 2, 0)
        grey = planes.mean(axis=2, keepdims=True)
        planes = grey + 0.4 * (planes - grey)
        pixels = 120 + 50 * (planes - planes.mean()) / planes.std()
        path = folder / f"class{number % 8}" / f"{number:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path, quality=83)
