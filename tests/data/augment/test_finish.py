"""Tests of the steps on the device: normalization, colours and erasing, each against its own formula."""

import numpy as np
import pytest
import torch

from backbones.data.augment.colour import darknet_matrices, darknet_shifts, jitter_matrices
from backbones.data.augment.draws import DRAWS
from backbones.data.augment.erasing import erase_boxes
from backbones.data.augment.finish import Finish
from backbones.data.augment.hsv import distort
from backbones.data.augment.view import View
from backbones.recipe import Augment, DarknetAugment, InceptionAugment, Preprocess

SIZE = 24
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.5)
PIXELS = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (6, SIZE, SIZE, 3), dtype=np.uint8))
DRAWN = np.random.default_rng(1).random((6, DRAWS))


def finish(augment: Augment | None, preprocess: Preprocess | None = None) -> torch.Tensor:
    view = View(SIZE, preprocess or Preprocess(mean=MEAN, std=STD), augment)
    return Finish(view, torch.device("cpu"))(PIXELS, DRAWN)


def normalized(images: torch.Tensor) -> torch.Tensor:
    """Normalize (N, H, W, 3) in [0, 1] by the definition -> (N, 3, H, W)."""
    mean, std = torch.tensor(MEAN), torch.tensor(STD)
    return ((images - mean) / std).permute(0, 3, 1, 2)


def test_bytes_become_normalized_channels_last_floats() -> None:
    found = finish(None)
    assert found.dtype == torch.float32
    assert found.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found, normalized(PIXELS / 255), rtol=1e-5, atol=1e-6)


def test_an_augmentation_without_colours_changes_none() -> None:
    plain = Augment("inception")
    grey = Augment(darknet=DarknetAugment(hue=0, saturation=1, exposure=1))
    for augment in (plain, grey):
        torch.testing.assert_close(finish(augment), finish(None), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("augment", "matrices"),
    [
        (Augment(), darknet_matrices),
        (Augment("inception", inception=InceptionAugment(color_jitter=0.4)), jitter_matrices),
    ],
    ids=["darknet", "jitter"],
)
def test_colours_are_multiplied_clamped_and_then_normalized(augment: Augment, matrices) -> None:
    rows = torch.from_numpy(matrices(DRAWN, augment)).double()
    colours = torch.einsum("nij,nhwj->nhwi", rows[:, :, :3], PIXELS.double() / 255) + rows[:, None, None, :, 3]
    expected = normalized(colours.clamp(0, 1)).float()
    torch.testing.assert_close(finish(augment), expected, rtol=1e-4, atol=1e-5)
    assert (finish(augment) - finish(None)).abs().mean() > 0.05


def test_exact_hsv_is_darknet_s() -> None:
    augment = Augment(darknet=DarknetAugment(hsv="exact"))
    shifts = darknet_shifts(DRAWN, augment)
    for number, found in enumerate(finish(augment)):
        image = PIXELS[number].permute(2, 0, 1).double() / 255
        expected = normalized(distort(image, *shifts[number].tolist()).permute(1, 2, 0)[None])[0]
        torch.testing.assert_close(found, expected.float(), rtol=1e-4, atol=1e-5)


def test_what_is_erased_has_the_mean_colour() -> None:
    augment = Augment("inception", inception=InceptionAugment(erasing=0.6))
    boxes = erase_boxes(DRAWN, augment.inception, size=SIZE)
    expected = finish(None)
    for image, (top, left, height, width) in zip(expected, boxes.tolist(), strict=True):
        image[:, top : top + height, left : left + width] = 0
    assert 0 < (boxes[:, 2] > 0).sum() < 6
    torch.testing.assert_close(finish(augment), expected, rtol=0, atol=0)


def test_evaluation_ignores_the_draws() -> None:
    view = View(SIZE, Preprocess())
    ours = Finish(view, torch.device("cpu"))
    torch.testing.assert_close(ours(PIXELS, DRAWN), ours(PIXELS, np.zeros((6, DRAWS))), rtol=0, atol=0)


def test_a_batch_may_be_empty() -> None:
    for augment in (None, Augment(), Augment(darknet=DarknetAugment(hsv="exact"))):
        found = Finish(View(SIZE, Preprocess(), augment), torch.device("cpu"))(PIXELS[:0], DRAWN[:0])
        assert found.shape == (0, 3, SIZE, SIZE)
