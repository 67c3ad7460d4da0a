import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from backbones.layers import Asff, adaptive_sum
from tests.layers.neck_checks import require_sizes_and_learning, require_true_gradient

SIZES = [(13, 9), (7, 5), (4, 3)]


def maps(*channels):
    return [torch.randn(2, c, *size) for c, size in zip(channels, SIZES, strict=True)]


def test_every_pixel_has_its_own_softmax_over_the_levels():
    inputs, logits = [torch.randn(2, 4, 3, 5) for _ in range(3)], torch.randn(2, 3, 3, 5)
    result = adaptive_sum(inputs, logits)
    for (n, c, y, x), value in np.ndenumerate(result.numpy()):
        powers = [math.exp(logits[n, level, y, x]) for level in range(3)]
        weighted = sum(power * float(level[n, c, y, x]) for power, level in zip(powers, inputs, strict=True))
        assert value == pytest.approx(weighted / sum(powers), rel=1e-5, abs=1e-6)


def test_huge_logits_stay_finite_and_half_precision_stays_half():
    inputs = [torch.full((1, 1, 2, 2), value, dtype=torch.bfloat16) for value in (1.0, 2.0, 3.0)]
    logits = torch.tensor([1e4, -1e4, 0.0], dtype=torch.bfloat16).reshape(1, 3, 1, 1)
    result = adaptive_sum(inputs, logits)
    assert result.dtype == torch.bfloat16
    assert torch.equal(result, inputs[0])


def written_out(neck, p3, p4, p5):
    """The paper's equations for three levels."""
    (at3, at4, at5), down = neck.fusions, lambda x: F.max_pool2d(x, 3, 2, padding=1)

    def up(x, like):
        return F.interpolate(x, size=like.shape[2:], mode="nearest")

    def fuse(node, *resized):
        compressed = torch.cat([c(x) for c, x in zip(node.compress, resized, strict=True)], 1)
        shares = F.conv2d(compressed, node.weigh.weight, node.weigh.bias).softmax(1)
        return node.expand(torch.einsum("lnchw,nlhw->nchw", torch.stack(resized), shares))

    return [
        fuse(at3, p3, up(p4, p3), up(p5, p3)),
        fuse(at4, at4.shrink[0](p3), p4, up(p5, p4)),
        fuse(at5, at5.shrink[0](down(p3)), at5.shrink[1](p4), p5),
    ]


@torch.no_grad()
def test_it_follows_the_papers_equations():
    torch.manual_seed(0)
    neck = Asff([8, 8, 8], 8, compressed=4).eval()
    features = maps(8, 8, 8)
    torch.testing.assert_close(neck(features), written_out(neck, *features))


@torch.no_grad()
def test_a_level_whose_logits_win_everywhere_is_the_only_one_that_is_seen():
    neck = Asff([4, 4, 4], 4).eval()
    for fusion in neck.fusions:
        fusion.weigh.bias.copy_(torch.tensor([0.0, 100.0, 0.0]))
    p3, p4, p5 = maps(4, 4, 4)
    results = neck([p3, p4, p5])
    torch.testing.assert_close(results[1], neck.fusions[1].expand(p4))
    torch.testing.assert_close(neck([p3 + 1, p4, -p5]), results)


@pytest.mark.parametrize("levels", [2, 3, 5])
def test_any_row_of_levels_keeps_its_sizes_and_every_parameter_learns(levels):
    require_sizes_and_learning(Asff([6] * levels, 4), levels, channels=6, width=4)


def test_the_gradient_is_true():
    torch.manual_seed(0)
    require_true_gradient(Asff([2, 2, 2], 2, compressed=2), ((4, 3), (2, 2), (1, 1)))


def test_a_single_level_and_another_number_of_maps_are_refused():
    with pytest.raises(ValueError, match=r"in_channels=\(4,\): an ASFF mixes at least two levels"):
        Asff([4], 4)
    with pytest.raises(ValueError, match="the ASFF has 3 levels, not 2"):
        Asff([4, 4, 4], 4)(maps(4, 4, 4)[:2])
