import pytest
import torch

from backbones.layers import ConvNormAct, PaNet
from tests.layers.as_cfg import build, conv, randomize
from tests.layers.neck_checks import require_sizes_and_learning, require_true_gradient

YOLOV4 = [
    (256, 1, 1), (256, 1, 1), (256, 1, 1), (512, 3, 1), (256, 1, 1), (512, 3, 1), (256, 1, 1),
    (128, 1, 1), (128, 1, 1), (128, 1, 1), (256, 3, 1), (128, 1, 1), (256, 3, 1), (128, 1, 1),
    (256, 3, 2), (256, 1, 1), (512, 3, 1), (256, 1, 1), (512, 3, 1), (256, 1, 1),
    (512, 3, 2), (512, 1, 1), (1024, 3, 1), (512, 1, 1), (1024, 3, 1), (512, 1, 1),
]  # fmt: skip
"""Filters, size and stride in yolov4.cfg, layers 117 to 158 without the heads; csresnext50-panet-spp has the same."""


def route(*layers: int) -> str:
    return f"[route]\nlayers={','.join(map(str, layers))}\n"


def five(width: int) -> str:
    return conv(width, 1) + (conv(2 * width, 3) + conv(width, 1)) * 2


UP = "[upsample]\nstride=2\n"
LEVELS = "[maxpool]\nsize=1\nstride=1\n" + "[local_avgpool]\nsize=2\nstride=2\n" * 2
"""Layers 0, 1 and 2: the image as P3, P4 and P5."""
CFG = (
    LEVELS
    + conv(8, 1)  # 3: P5
    + conv(4, 1) + UP + route(1) + conv(4, 1) + route(-1, -3) + five(4)  # 4 to 13: P4
    + conv(2, 1) + UP + route(0) + conv(2, 1) + route(-1, -3) + five(2)  # 14 to 23: P3
    + conv(4, 3, 2) + route(-1, 13) + five(4)  # 24 to 30
    + conv(8, 3, 2) + route(-1, 3) + five(8)  # 31 to 37
)  # fmt: skip
"""The neck of yolov4.cfg, a 64th as wide, between other levels."""


@torch.no_grad()
def test_it_computes_what_the_cfg_of_darknet_computes():
    torch.manual_seed(0)
    neck = randomize(PaNet([3, 3, 3], (2, 4, 8), act="leaky"))
    network = build(CFG, neck, channels=3, height=16, width=24)
    outputs = network.outputs(torch.randn(2, 3, 16, 24))
    for ours, theirs in zip(neck(outputs[:3]), (outputs[23], outputs[30], outputs[37]), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_its_convolutions_are_those_of_yolov4():
    with torch.device("meta"):
        neck = PaNet([256, 512, 512], (128, 256, 512))
    convs = [unit.conv for unit in neck.modules() if isinstance(unit, ConvNormAct)]
    assert [(c.out_channels, c.kernel_size[0], c.stride[0]) for c in convs] == YOLOV4


@pytest.mark.parametrize("levels", [2, 3, 5])
def test_any_row_of_levels_keeps_its_sizes_and_every_parameter_learns(levels):
    require_sizes_and_learning(PaNet([6] * levels, 4), levels, channels=6, width=4)


def test_the_gradient_is_true():
    torch.manual_seed(0)
    require_true_gradient(PaNet([2, 2], 2), ((3, 5), (2, 3)))


def test_levels_and_widths_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"in_channels=\(4,\): a PANet mixes at least two levels"):
        PaNet([4], 4)
    with pytest.raises(ValueError, match=r"width=\(4, 8\) must have one number for each of 3 levels"):
        PaNet([4, 4, 4], (4, 8))
    with pytest.raises(ValueError, match="the PANet has 2 levels, not 1"):
        PaNet([4, 4], 4)([torch.empty(1, 4, 2, 2)])
