import pytest
import torch
from torch import nn

import backbones
from backbones.layers import DarknetMaxPool2d, InputPyramid, LocalAvgPool2d, Maxout, WeightedShortcut
from backbones.models import bflops


class Join(nn.Module):
    """Call a layer with the same map several times."""

    def __init__(self, layer, inputs):
        super().__init__()
        self.layer, self.inputs = layer, inputs

    def forward(self, x):
        return self.layer(*[x] * self.inputs)


@pytest.mark.parametrize(
    ("model", "operations"),
    [
        (nn.Conv2d(4, 8, 3, padding=1, groups=2), 2 * 8 * 2 * 9 * 16 * 16),
        (nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10)), 2 * 4 * 10),
        (nn.MaxPool2d(2), 4 * 4 * 8 * 8),
        (DarknetMaxPool2d(3, 2), 9 * 4 * 8 * 8),
        (LocalAvgPool2d(2), 4 * 4 * 8 * 8),
        (Join(WeightedShortcut((4, 4, 4)), 3), 2 * 4 * 256),
        (Join(WeightedShortcut((4, 4, 4), weights_type="per_feature"), 3), 2 * 2 * 4 * 256),
        (Join(Maxout((4, 4)), 2), 2 * 4 * 256),
        (InputPyramid(2), 4 * 256 + 4 * 4 * 64 + 4 * 4 * 16),
        (InputPyramid(2, "reorg3d"), 4 * 256),
        (nn.Sequential(nn.BatchNorm2d(4), nn.Mish()), 0),
    ],
)
def test_each_layer_costs_what_darknet_counts(model, operations):
    assert bflops(model, 16, in_chans=4) * 1e9 == pytest.approx(operations)


def test_twice_the_side_costs_four_times_the_operations_but_for_the_classifier():
    with torch.device("meta"):
        model = backbones.create_model("csresnext50_ws", num_classes=0)
    assert bflops(model, 512) == pytest.approx(4 * bflops(model, 256))


def test_counting_leaves_the_model_alone():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)).train()
    bflops(model, 8)
    assert model.training
    assert model[1].num_batches_tracked == 0
    assert not model[0]._forward_hooks
