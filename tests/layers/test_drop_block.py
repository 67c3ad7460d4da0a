import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from backbones.layers import drop_block
from backbones.layers.drop_block import (
    DropBlock2d,
    drop_block_2d,
    drop_block_ramp,
    paper_drop_block_2d,
    set_drop_block_progress,
)


def written_out(x, random, probability, block_size):
    """Darknet's rule in plain Python, cell by cell."""
    count, channels, height, width = x.shape
    size = max(1, min(int(block_size), height, width))
    output = x.clone()
    for n in range(count):
        dropped = 0
        for c in range(channels):
            cells = [(random[n, c, y, z].item(), z, y) for y in range(height) for z in range(width)]
            value, left, top = min(cells)
            if value >= probability / size**2:
                continue
            left = left - (width - size) if left > width - size else left
            top = top - (height - size) if top > height - size else top
            left, top = (min(max(left, 0), width - size), min(max(top, 0), height - size))
            output[n, c, top : top + size, left : left + size] = 0
            dropped += 1
        outputs = channels * height * width
        output[n] *= outputs / max(1, outputs - size**2 * dropped)
    return output


@pytest.mark.parametrize(("size", "probability"), [(1, 0.3), (3, 0.9), (3.9, 0.5), (5, 0.9), (12, 0.9), (0.2, 0.2)])
def test_the_rule_is_darknets_written_out(size, probability):
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(3, 6, 5, 7, generator=generator)
    random = torch.rand(x.shape, generator=generator)
    expected = written_out(x, random, probability, size)
    assert (expected == 0).any()
    torch.testing.assert_close(drop_block_2d(x, random, probability, size), expected)


@pytest.mark.parametrize(("cell", "corner"), [((0, 0), (0, 0)), ((2, 1), (2, 1)), ((4, 2), (2, 2)), ((3, 4), (1, 2))])
def test_a_square_near_the_edge_wraps_and_stays_inside(cell, corner):
    random = torch.ones(1, 1, 5, 5)
    random[0, 0, cell[0], cell[1]] = 0
    zeros = (drop_block_2d(torch.ones(1, 1, 5, 5), random, 0.5, 3)[0, 0] == 0).nonzero()
    assert tuple(zeros.amin(0).tolist()) == corner
    assert tuple(zeros.amax(0).tolist()) == (corner[0] + 2, corner[1] + 2)


def test_a_sample_is_scaled_as_a_whole_and_on_its_own():
    random = torch.ones(2, 2, 4, 4)
    random[0, 0, 1, 1] = 0
    output = drop_block_2d(torch.ones(2, 2, 4, 4), random, 0.5, 2)
    torch.testing.assert_close(output[0, 1], torch.full((4, 4), 32 / 28))
    assert (output[1] == 1).all()


def test_a_channel_loses_at_most_one_square():
    output = drop_block_2d(torch.ones(1, 50, 8, 8), torch.rand(1, 50, 8, 8), 0.99 * 4, 2)
    assert set((output[0] == 0).sum((1, 2)).tolist()) <= {0, 4}


def test_a_sample_that_is_dropped_whole_is_zero_not_nan():
    assert (drop_block_2d(torch.ones(1, 1, 2, 2), torch.zeros(1, 1, 2, 2), 0.5, 2) == 0).all()


def test_the_gradient_has_the_same_mask_and_scale():
    x = torch.randn(1, 3, 6, 6, requires_grad=True)
    output = drop_block_2d(x, torch.rand(1, 3, 6, 6), 2.0, 3)
    output.sum().backward()
    torch.testing.assert_close(x.grad * x, output)


def test_the_papers_squares_start_where_they_fit_and_may_overlap():
    random = torch.ones(1, 1, 6, 6)
    random[0, 0, 0, 0] = random[0, 0, 1, 1] = random[0, 0, 5, 5] = 0
    output = paper_drop_block_2d(torch.ones(1, 1, 6, 6), random, 0.1, 2)[0, 0]
    expected = torch.ones(6, 6)
    expected[0:2, 0:2] = expected[1:3, 1:3] = 0
    torch.testing.assert_close(output, expected * 36 / (36 - 7))


def test_the_paper_drops_the_share_asked_for_and_keeps_the_mean():
    torch.manual_seed(0)
    output = paper_drop_block_2d(torch.ones(64, 16, 14, 14), torch.rand(64, 16, 14, 14), 0.1, 3)
    # Overlapping squares drop a little less than the share.
    assert 0.08 < (output == 0).float().mean().item() < 0.1
    assert math.isclose(output.mean().item(), 1, rel_tol=1e-5)


def test_darknet_triggers_as_often_as_independent_cells_would():
    torch.manual_seed(0)
    output = drop_block_2d(torch.ones(64, 64, 8, 8), torch.rand(64, 64, 8, 8), 0.2, 4)
    channels = (output == 0).flatten(2).any(2).double().mean().item()
    expected = 1 - (1 - 0.2 / 16) ** 64
    assert abs(channels - expected) < 4 * math.sqrt(expected * (1 - expected) / 64**2)


@pytest.mark.parametrize(("progress", "strength"), [(0, 0), (0.425, 0.5), (0.85, 1), (1, 1)])
def test_the_strength_grows_over_85_percent_of_the_training(progress, strength):
    assert drop_block_ramp(torch.tensor(float(progress)), 0.85).item() == pytest.approx(strength)


def recorded_call(monkeypatch, kind, progress, **options):
    """Return the probability and the size that a layer asks its rule for."""
    seen = []
    rule = replace(drop_block._RULES[kind], drop=lambda x, _random, *strength: (seen.extend(strength), x)[1])
    monkeypatch.setitem(drop_block._RULES, kind, rule)
    layer = DropBlock2d(0.1, 7, kind=kind, **options)
    set_drop_block_progress(nn.Sequential(layer), progress)
    layer(torch.ones(1, 2, 16, 12))
    probability, size = seen
    return float(probability), int(size)


def test_darknet_lets_probability_and_size_grow(monkeypatch):
    assert recorded_call(monkeypatch, "darknet", 0.425) == (pytest.approx(0.05), 3)


def test_a_relative_size_is_a_share_of_the_shorter_side(monkeypatch):
    assert recorded_call(monkeypatch, "darknet", 0.9, relative_size=0.5) == (pytest.approx(0.1), 6)


def test_the_paper_lets_only_the_probability_grow_and_to_the_end(monkeypatch):
    assert recorded_call(monkeypatch, "paper", 0.5) == (pytest.approx(0.05), 7)


@pytest.mark.parametrize("kind", ["darknet", "paper"])
def test_it_is_the_identity_at_inference_and_at_the_start(kind):
    layer, x = DropBlock2d(0.5, 3, kind=kind), torch.randn(2, 3, 8, 8)
    assert layer.eval()(x) is x
    set_drop_block_progress(layer, 0)
    assert torch.equal(layer.train()(x), x)


def test_darknets_dropout_layer_is_the_identity_at_inference(recorded):
    run = recorded("head")
    assert torch.equal(DropBlock2d(0.3, 2).eval()(run["out/000"]), run["out/001"])


@pytest.mark.parametrize("kind", ["darknet", "paper"])
def test_the_same_seed_drops_the_same_squares(kind):
    layer, x = DropBlock2d(0.5, 3, kind=kind), torch.ones(2, 8, 8, 8)
    runs = []
    for _ in range(2):
        torch.manual_seed(3)
        runs.append(layer(x))
    assert torch.equal(*runs)
    assert not torch.equal(runs[0], layer(x))


def test_bfloat16_stays_bfloat16():
    for kind in ("darknet", "paper"):
        assert DropBlock2d(0.5, 3, kind=kind)(torch.ones(2, 8, 8, 8).bfloat16()).dtype == torch.bfloat16


def test_the_progress_is_no_part_of_a_checkpoint():
    assert DropBlock2d().state_dict() == {}


def test_progress_does_not_compile_the_network_again():
    layer, x = DropBlock2d(0.5, 3), torch.ones(2, 8, 8, 8)
    compilations = []

    def backend(module, _inputs):
        compilations.append(1)
        return module.forward

    compiled = torch.compile(layer, fullgraph=True, backend=backend)
    for step in range(4):
        set_drop_block_progress(layer, step / 4)
        compiled(x)
    assert len(compilations) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"probability": 1.0}, r"probability=1.0 must lie in \[0, 1\)"),
        ({"block_size": 0}, "block_size=0 must be at least 1"),
        ({"relative_size": 1.5}, r"relative_size=1.5 must lie in \(0, 1\]"),
        ({"kind": "papr"}, "Did you mean paper"),
    ],
)
def test_options_that_cannot_be_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        DropBlock2d(**options)
