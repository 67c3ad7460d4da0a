"""Folders of small images of mixed sizes and colour modes, made for the tests."""

from pathlib import Path

import numpy as np
from PIL import Image

SIZES = [(71, 48), (48, 71), (64, 64), (113, 40), (57, 90), (33, 35), (130, 97), (51, 101)]
"""Width and height: odd, even, portrait, landscape, and smaller than the network input."""


def picture(width: int, height: int, *, seed: int, channels: int = 3) -> np.ndarray:
    """Return a smooth picture with some noise, sharp enough to show a shift by one pixel."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 8 + 2, width // 8 + 2, channels), dtype=np.uint8)
    planes = [
        Image.fromarray(coarse[..., c]).resize((width, height), Image.Resampling.BICUBIC) for c in range(channels)
    ]
    noise = rng.integers(-12, 13, (height, width, channels))
    return (np.stack(planes, axis=2).astype(int) + noise).clip(0, 255).astype(np.uint8)


def square_picture(size: int = 96, *, seed: int = 0) -> np.ndarray:
    """Return a picture (size, size, 3) that is neither black nor white anywhere."""
    random = np.random.default_rng(seed)
    coarse = random.integers(20, 200, (size // 8, size // 8, 3), dtype=np.uint8)
    smooth = np.array(Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC)).astype(int)
    return (smooth + random.integers(-8, 9, (size, size, 3))).clip(10, 220).astype(np.uint8)


def save_image(path: Path, width: int, height: int, *, seed: int, mode: str = "RGB", kind: str = "JPEG") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    channels = {"RGB": 3, "L": 1, "CMYK": 4, "RGBA": 4}[mode]
    pixels = picture(width, height, seed=seed, channels=channels)
    image = Image.fromarray(pixels[..., 0]) if mode == "L" else Image.frombytes(mode, (width, height), pixels.tobytes())
    image.save(path, format=kind, **({"quality": 92} if kind == "JPEG" else {}))
    return path


def write_split(root: Path, *, count: int, classes: int = 3) -> Path:
    for number in range(count):
        width, height = SIZES[number % len(SIZES)]
        save_image(root / f"class{number % classes}" / f"{number:03d}.jpg", width, height, seed=number)
    return root
