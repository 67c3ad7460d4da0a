"""One layer in the place of a layer and its batch normalization gives the same outputs."""

import pytest
import torch
from timm.layers.norm_act import BatchNormAct2d
from torch import nn

from backbones.layers.fold import fold_norm, fold_unit


class Unit(nn.Module):
    """A layer with a batch normalization whose statistics are far from their initial values."""

    def __init__(self, layer: nn.Module, norm: nn.Module, name: str) -> None:
        super().__init__()
        setattr(self, name, layer)
        self.bn = norm
        self.name = name
        for values in (norm.weight, norm.bias, norm.running_mean):
            nn.init.normal_(values)  # pyright: ignore[reportArgumentType]
        nn.init.uniform_(norm.running_var, 0.1, 3)  # pyright: ignore[reportArgumentType]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.bn(getattr(self, self.name)(x))


UNITS = {
    "grouped convolution": (lambda bias: nn.Conv2d(6, 8, 3, groups=2, bias=bias), nn.BatchNorm2d, "conv", (2, 6, 5, 5)),
    "matrix": (lambda bias: nn.Linear(6, 8, bias=bias), nn.BatchNorm1d, "fc", (2, 6)),
}


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("layer", "norm", "name", "shape"), UNITS.values(), ids=UNITS)
def test_a_folded_unit_computes_the_same(layer, norm, name: str, shape: tuple[int, ...], bias: bool) -> None:
    unit = Unit(layer(bias), norm(8), name).eval()
    x = torch.randn(shape)
    before = unit(x)
    fold_unit(unit)
    assert type(unit.bn) is nn.Identity
    torch.testing.assert_close(unit(x), before, rtol=1e-5, atol=1e-5)


def test_weight_and_bias_follow_the_formula() -> None:
    norm = nn.BatchNorm1d(1, eps=0.0)
    norm.weight.data.fill_(6.0)
    norm.bias.data.fill_(1.0)
    norm.running_mean, norm.running_var = torch.tensor([3.0]), torch.tensor([4.0])
    weight, bias = fold_norm(torch.tensor([[2.0]]), torch.tensor([5.0]), norm)
    assert weight.tolist() == [[2 * 6 / 2]]
    assert bias.tolist() == [1 + (5 - 3) * 6 / 2]


def test_a_normalization_with_an_activation_is_left_alone() -> None:
    unit = Unit(nn.Conv2d(3, 4, 1), BatchNormAct2d(4), "conv")
    fold_unit(unit)
    assert isinstance(unit.bn, BatchNormAct2d)
