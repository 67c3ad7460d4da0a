"""Tests of the resizing of decoded windows, against PIL."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image

from backbones.data.augment.crop import Crops, whole_boxes
from backbones.data.augment.resize import resize_windows
from backbones.recipe import Interpolation
from tests.dataset.make_pictures import picture

SIZES = [(71, 48), (48, 71), (64, 64), (113, 40), (33, 35), (257, 130), (1, 1), (2, 90)]
FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


@pytest.fixture(scope="module")
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(3) as threads:
        yield threads


def crops_of(images: list[np.ndarray], resized: np.ndarray, corners: np.ndarray, flips: np.ndarray) -> Crops:
    sizes = np.array([image.shape[:2] for image in images], dtype=np.int64).reshape(-1, 2)
    return Crops(np.zeros((len(resized), 4), dtype=np.int64), whole_boxes(sizes), resized, corners, flips)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_pixels_are_those_of_pil_to_a_grey_level(pool: ThreadPoolExecutor, interpolation: Interpolation) -> None:
    images = [picture(width, height, seed=seed) for seed, (width, height) in enumerate(SIZES)]
    resized = np.array([[48, 60], [70, 48], [48, 48], [64, 90], [50, 48], [48, 55], [48, 48], [100, 49]])
    corners = np.array([[0, 6], [22, 0], [0, 0], [3, 5], [1, 0], [0, 7], [0, 0], [52, 1]])
    flips = np.arange(8) % 2
    windows = [torch.from_numpy(image) for image in images]
    crops = crops_of(images, resized, corners, flips)
    found = resize_windows(windows, crops, size=48, interpolation=interpolation, pool=pool).numpy()
    for square, image, (tall, wide), (top, left), flip in zip(found, images, resized, corners, flips, strict=True):
        whole = np.asarray(Image.fromarray(image).resize((wide, tall), FILTERS[interpolation]))
        expected = whole[top : top + 48, left : left + 48][:, :: -1 if flip else 1]
        assert np.abs(square.astype(int) - expected).max() <= 1
        assert np.abs(square.astype(int) - expected).mean() <= 0.02


def test_a_batch_may_be_empty(pool: ThreadPoolExecutor) -> None:
    nothing = crops_of(
        [], np.zeros((0, 2), dtype=np.int64), np.zeros((0, 2), dtype=np.int64), np.zeros(0, dtype=np.int64)
    )
    assert resize_windows([], nothing, size=8, interpolation="bilinear", pool=pool).shape == (0, 8, 8, 3)
