import pytest
import torch

from backbones.layers.crop import Crop


def coordinates(count: int, height: int, width: int) -> torch.Tensor:
    """Return images of which each cell says where it is: 100 * row + column."""
    grid = 100.0 * torch.arange(height)[:, None] + torch.arange(width)
    return grid.expand(count, 2, height, width)


def test_the_middle_is_taken_otherwise():
    assert torch.equal(
        Crop(3, 2, adjust=False, flip=True).eval()(coordinates(1, 6, 7))[0, 0],
        torch.tensor([[102.0, 103], [202, 203], [302, 303]]),
    )


def test_values_reach_from_minus_one_to_one():
    assert Crop(1, 3).eval()(torch.tensor([[[[0.0, 0.25, 1.0]]]])).flatten().tolist() == [-1, -0.5, 1]


def test_in_training_each_image_has_its_own_place_and_flip():
    torch.manual_seed(0)
    parts = Crop(3, 2, adjust=False, flip=True).train()(coordinates(400, 6, 7))
    assert parts.shape == (400, 2, 3, 2)
    assert torch.equal(parts[:, 0], parts[:, 1])
    assert torch.equal(parts[:, 0, 1:] - parts[:, 0, :-1], torch.full((400, 2, 2), 100.0))
    steps = parts[:, 0, 0, 1] - parts[:, 0, 0, 0]
    assert set(steps.tolist()) == {-1.0, 1.0}
    assert 120 < (steps == 1).sum() < 280
    corners = parts[:, 0].amin((1, 2))
    assert {int(corner) for corner in corners} == {100 * row + column for row in range(4) for column in range(6)}


def test_nothing_is_flipped_unasked():
    torch.manual_seed(0)
    parts = Crop(3, 2, adjust=False).train()(coordinates(50, 6, 7))
    assert bool((parts[..., 1] - parts[..., 0] == 1).all())


def test_a_window_larger_than_the_map_is_refused():
    with pytest.raises(ValueError, match="a crop of 2 x 7 is larger than the map of 7 x 6"):
        Crop(7, 2)(coordinates(1, 6, 7))


def test_a_trace_crops_the_middle():
    crop = Crop(3, 2).eval()
    assert torch.equal(torch.fx.symbolic_trace(crop)(coordinates(1, 6, 7)), crop(coordinates(1, 6, 7)))
