"""Tests of the synthetic images: they depend on the row alone, and their colour on the label."""

import numpy as np
import torch

from backbones.data.augment.view import View
from backbones.data.feed import Feed
from backbones.data.order import Plan
from backbones.data.reading.bad_images import BadImages
from backbones.data.synthetic import images, synthetic_index
from backbones.recipe import Loading, Preprocess


def pixels(rows: list[int]) -> torch.Tensor:
    index = synthetic_index(10, 5)
    feed = Feed(index, View(40, Preprocess()), 8, torch.device("cpu"), 1, Loading(), BadImages(index, None))
    plan = Plan(0, 0, np.array(rows), np.zeros((len(rows), 5)))
    with images(iter([plan]), feed) as found:
        return next(found)[1]


def test_an_index_has_the_classes_and_rows_asked_for() -> None:
    index = synthetic_index(10, 5)
    assert len(index) == 50
    assert index.labels.tolist() == sorted([*range(10)] * 5)


def test_a_row_has_the_same_image_in_any_batch_and_no_other_row_has_it() -> None:
    found = pixels([3, 7, 3, 4])
    torch.testing.assert_close(found[0], found[2], rtol=0, atol=0)
    torch.testing.assert_close(pixels([7])[0], found[1], rtol=0, atol=0)
    assert (found[0] != found[3]).float().mean() > 0.9
    assert found.dtype == torch.uint8


def test_the_label_shows_in_the_mean_colour() -> None:
    colours = pixels(list(range(50))).float().mean(dim=(1, 2)).view(10, 5, 3)
    within = colours.std(dim=1).max()
    between = torch.cdist(colours.mean(dim=1), colours.mean(dim=1)).fill_diagonal_(1e9).min()
    assert between > 5 * within
