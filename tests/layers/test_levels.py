import pytest
import torch
from torch import nn

from backbones.layers import ConvNormAct, PerLevel
from backbones.layers.levels import alternating_convs, create_lateral, enlarge


def test_each_level_passes_its_own_layer():
    features = [torch.randn(1, 4, 6, 6), torch.randn(1, 8, 3, 3)]
    neck = PerLevel([nn.Identity(), nn.Conv2d(8, 2, 1)])
    same, other = neck(features)
    assert same is features[0]
    torch.testing.assert_close(other, neck.layers[1](features[1]))
    with pytest.raises(ValueError, match="the PerLevel has 2 levels, not 1"):
        neck(features[:1])


def test_a_lateral_is_a_convolution_only_where_the_width_changes():
    assert isinstance(create_lateral(8, 8), nn.Identity)
    lateral = create_lateral(8, 4, act="leaky")
    assert isinstance(lateral, ConvNormAct)
    assert lateral.conv.weight.shape == (4, 8, 1, 1)


def test_kernels_and_widths_alternate():
    convs = alternating_convs(10, 4, 5, act="leaky")
    assert [tuple(unit.conv.weight.shape[:3]) for unit in convs] == [
        (4, 10, 1), (8, 4, 3), (4, 8, 1), (8, 4, 3), (4, 8, 1)
    ]  # fmt: skip


@pytest.mark.parametrize(("size", "like"), [((3, 4), (6, 8)), ((3, 4), (5, 7)), ((1, 1), (2, 1))])
def test_a_map_is_enlarged_by_repeating_cells_to_the_size_of_the_other(size, like):
    x = torch.randn(2, 3, *size)
    rows, columns = (torch.arange(new) * old // new for new, old in zip(like, size, strict=True))
    assert torch.equal(enlarge(x, torch.empty(1, 1, *like)), x[:, :, rows][..., columns])
