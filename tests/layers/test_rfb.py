import pytest
import torch
import torch.nn.functional as F
from torch import nn

from backbones.layers import Rfb
from backbones.layers.fuse import fuse
from tests.layers.as_cfg import randomize


@torch.no_grad()
@pytest.mark.parametrize("dilations", [(3, 5), (2, 3)])
def test_the_branches_are_chains_of_plain_convolutions_side_by_side(dilations):
    torch.manual_seed(0)
    block = Rfb(8, batch_norm=False, dilations=dilations, act="leaky")
    for unit in block.branches.modules():
        if isinstance(unit, nn.Conv2d):
            nn.init.normal_(unit.bias)
    x = torch.randn(2, 8, 20, 17)

    def run(branch, *paddings):
        out = x
        for unit, (padding, dilation) in zip(branch, paddings, strict=True):
            conv = unit.conv
            out = F.leaky_relu(F.conv2d(out, conv.weight, conv.bias, 1, padding, dilation), 0.1)
        return out

    one, three, near, five, far = (0, 1), (1, 1), (dilations[0],) * 2, (2, 1), (dilations[1],) * 2
    rows = [(one,), (one, three), (one, three, near), (one, five, far)]
    expected = [run(branch, *row) for branch, row in zip(block.branches, rows, strict=True)]
    torch.testing.assert_close(block(x), torch.cat(expected, 1))


def test_the_branches_see_1_3_9_and_15_cells():
    block = Rfb(8, batch_norm=False, act="linear")
    x = torch.zeros(1, 8, 21, 21, requires_grad=True)
    for branch, width in zip(block.branches, (1, 3, 9, 15), strict=True):
        (gradient,) = torch.autograd.grad(branch(x)[0, :, 10, 10].sum(), x)
        seen = gradient[0].abs().sum(0).nonzero() - 10
        assert seen.abs().max() == width // 2


@torch.no_grad()
def test_the_form_without_batch_normalization_is_the_folded_one():
    torch.manual_seed(0)
    block, plain = randomize(Rfb(8)), Rfb(8, batch_norm=False).eval()
    plain.load_state_dict(fuse(block).state_dict())
    x = torch.randn(2, 8, 9, 7)
    torch.testing.assert_close(plain(x), block(x))
    assert not [module for module in plain.modules() if isinstance(module, nn.BatchNorm2d)]


@pytest.mark.parametrize("batch_norm", [True, False])
def test_the_gradient_is_true_and_every_parameter_learns(batch_norm):
    torch.manual_seed(0)
    block = Rfb(4, batch_norm=batch_norm).double().eval()
    x = torch.randn(1, 4, 3, 4, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(block, x)
    block.train()(x).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in block.parameters())


@pytest.mark.parametrize("channels", [0, 6])
def test_channels_that_do_not_divide_into_four_branches_are_refused(channels):
    with pytest.raises(ValueError, match=f"channels={channels} is not a multiple of 4"):
        Rfb(channels)
