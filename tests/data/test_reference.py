"""Tests of the reference against torchvision's own transforms."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from backbones.data.crop import View
from backbones.data.reference import decode, transform
from backbones.errors import UserError
from backbones.recipe import Augment, Preprocess


@pytest.mark.parametrize("size", [(90, 70), (70, 90), (48, 48), (130, 64)])
def test_validation_is_resize_and_centre_crop(tmp_path: Path, save, size: tuple[int, int]) -> None:
    image = decode(str(save(tmp_path / "1.jpg", *size, seed=1)))
    found = transform(image, np.zeros(5), view=View(48, Preprocess(0.8, "bicubic")))
    steps = v2.Compose([v2.Resize(60, v2.InterpolationMode.BICUBIC), v2.CenterCrop(48), v2.PILToTensor()])
    torch.testing.assert_close(found, steps(image).permute(1, 2, 0), rtol=0, atol=0)


def test_training_is_a_resized_crop_and_a_flip(tmp_path: Path, save) -> None:
    image = decode(str(save(tmp_path / "1.jpg", 100, 100, seed=1)))
    view = View(32, Preprocess(), Augment())
    found = transform(image, np.array([0.5, 0.8, 0.999, 0.0, 1.0]), view=view)
    cut = image.crop((0, 50, 80, 100)).resize((32, 32), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(found.numpy(), np.asarray(cut)[:, ::-1])


def test_an_unreadable_file_is_named_without_repeating_its_path(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        decode(str(tmp_path / "missing.jpg"))
    assert str(caught.value).count("missing.jpg") == 1
