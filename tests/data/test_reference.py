"""Tests of the reference against torchvision's own transforms and darknet's image operations."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as F
from PIL import Image
from torchvision.transforms import v2

from backbones.data.augment.draws import AREA, DRAWS, FLIP, LEFT, RATIO, TOP
from backbones.data.augment.view import View
from backbones.data.order import Plan
from backbones.data.reading.reader import EncodedBatch
from backbones.data.reference import transform
from backbones.recipe import Augment, InceptionAugment, Preprocess
from tests.data.augment import darknet_image


def view_of(image: Image.Image, view: View, draws: np.ndarray | None = None) -> torch.Tensor:
    plan = Plan(0, 0, np.array([0]), np.zeros((1, DRAWS)) if draws is None else draws)
    batch = EncodedBatch(plan, plan, [], np.array([[image.height, image.width]]))
    return transform([image], batch, view=view)[0]


def load(tmp_path: Path, save, *size: int) -> Image.Image:
    return Image.open(save(tmp_path / "1.jpg", *size, seed=1)).convert("RGB")


@pytest.mark.parametrize("size", [(90, 70), (70, 90), (48, 48), (130, 64), (91, 77)])
def test_timm_s_protocol_is_resize_and_centre_crop(tmp_path: Path, save, size: tuple[int, int]) -> None:
    image = load(tmp_path, save, *size)
    found = view_of(image, View(48, Preprocess("timm", 0.8, "bicubic")))
    steps = v2.Compose([v2.Resize(60, v2.InterpolationMode.BICUBIC), v2.CenterCrop(48), v2.PILToTensor()])
    torch.testing.assert_close(found, steps(image).permute(1, 2, 0), rtol=0, atol=0)


def test_the_full_protocol_is_a_resize(tmp_path: Path, save) -> None:
    image = load(tmp_path, save, 90, 70)
    expected = image.resize((48, 48), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(view_of(image, View(48, Preprocess("full"))).numpy(), np.asarray(expected))


@pytest.mark.parametrize("size", [(90, 70), (70, 90), (48, 48), (130, 64), (33, 35)])
def test_darknet_s_protocol_is_darknet_s_resize_and_crop(tmp_path: Path, save, size: tuple[int, int]) -> None:
    image = load(tmp_path, save, *size)
    found = view_of(image, View(48, Preprocess()))
    expected = darknet_image.centre_crop(F.pil_to_tensor(image).double() / 255, 48)
    torch.testing.assert_close(found.permute(2, 0, 1) / 255.0, expected.float(), rtol=0, atol=0.501 / 255)


def test_inception_is_a_resized_crop_and_a_flip(tmp_path: Path, save) -> None:
    image = load(tmp_path, save, 100, 100)
    draws = np.zeros((1, DRAWS))
    draws[0, [AREA, RATIO, TOP, LEFT, FLIP]] = 0.1, 0.5, 0.999, 0.0, 0.0
    found = view_of(image, View(32, Preprocess("timm"), Augment("inception", inception=InceptionAugment())), draws)
    side = round(100 * np.sqrt(0.33 + 0.1 * 0.67))
    cut = image.crop((0, 100 - side, side, 100)).resize((32, 32), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(found.numpy(), np.asarray(cut)[:, ::-1])
