"""Tests that every loader has the signature of feed.py: plans in their order, each with its pixels as bytes."""

import numpy as np
import pytest
import torch

from backbones.data.augment.view import View
from backbones.data.feed import Feed
from backbones.data.loader import LOADERS, import_loader
from backbones.data.order import validation_plans
from backbones.data.reading.bad_images import BadImages
from backbones.dataset.index import Index
from backbones.recipe import Loading, Preprocess


@pytest.mark.parametrize("loader", LOADERS)
def test_plans_come_back_in_order_with_their_pixels(split: Index, loader: str) -> None:
    if loader == "dali":
        pytest.importorskip("nvidia.dali")
    view, bad = View(24, Preprocess()), BadImages(split, None)
    feed = Feed(split, view, 20, torch.device("cpu"), workers=1, loading=Loading(), bad=bad)
    plans = list(validation_plans(len(split), 20))
    with import_loader(loader).images(iter(plans), feed) as pixels:
        found = list(pixels)
    for (plan, image), expected in zip(found, plans, strict=True):
        np.testing.assert_array_equal(plan.rows, expected.rows)
        assert (image.dtype, tuple(image.shape)) == (torch.uint8, (len(plan.rows), 24, 24, 3))


def test_every_loader_ends_its_stages_with_the_whole_of_its_work() -> None:
    for name in ("reference", "synthetic"):
        module = import_loader(name)
        assert list(module.STAGES.values())[-1] is module.images
