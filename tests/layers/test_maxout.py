import pytest
import torch

from backbones.layers import Maxout, maxout


@pytest.mark.parametrize(("layer", "source", "width"), [(1, 0, 4), (3, 2, 5), (6, 5, 12)])
def test_maxout_matches_darknet_also_where_channels_do_not_divide(recorded, layer, source, width):
    run = recorded("maxout")
    assert torch.equal(maxout(run[f"out/{source:03d}"], width), run[f"out/{layer:03d}"])


def test_the_module_concatenates_its_inputs_as_darknets_route_does(recorded):
    run = recorded("maxout")
    assert torch.equal(Maxout((12, 12))(run["out/004"], run["out/000"]), run["out/006"])


def test_a_narrower_last_input_takes_part_in_the_first_channels_only():
    wide, narrow = torch.full((1, 3, 2, 2), -1.0), torch.full((1, 2, 2, 2), 5.0)
    assert Maxout((3, 2))(wide, narrow)[0, :, 0, 0].tolist() == [5.0, 5.0, -1.0]


def test_each_output_sends_its_gradient_to_one_winner():
    x = torch.ones(1, 6, 1, 1, requires_grad=True)
    maxout(x, 3).sum().backward()
    assert x.grad.flatten().tolist() == [1, 1, 1, 0, 0, 0]


@pytest.mark.parametrize("channels", [(4,), (), (4, 2, 4), (2, 4), (4, 5)])
def test_widths_that_would_shift_the_channels_are_refused(channels):
    with pytest.raises(ValueError, match="only the last may be narrower"):
        Maxout(channels)


def test_other_widths_than_announced_are_refused():
    with pytest.raises(ValueError, match=r"maxout of \(4, 4\) channels got inputs of \(4, 3\)"):
        Maxout((4, 4))(torch.zeros(1, 4, 1, 1), torch.zeros(1, 3, 1, 1))


@pytest.mark.parametrize("width", [0, 5])
def test_more_outputs_than_inputs_are_refused(width):
    with pytest.raises(ValueError, match=rf"out_channels={width} must lie in \[1, 4\]"):
        maxout(torch.zeros(1, 4, 1, 1), width)


@pytest.mark.parametrize("on", [True, False])
def test_the_maximum_and_its_gradients_keep_channels_last(on):
    inputs = [torch.randn(2, c, 4, 3).to(memory_format=torch.channels_last).requires_grad_() for c in (6, 6, 4)]
    layer = Maxout((6, 6, 4))
    layer.recompute = on
    y = layer(*inputs)
    for x in (y, *torch.autograd.grad(y.square().sum(), inputs)):
        assert x.is_contiguous(memory_format=torch.channels_last)


def test_recomputation_changes_neither_the_maximum_nor_a_gradient():
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randint(4, (2, c, 4, 3), generator=generator).double().requires_grad_() for c in (6, 6, 4)]
    layer, results = Maxout((6, 6, 4)), []
    for layer.recompute in (True, False):
        y = layer(*inputs)
        results.append((y.detach(), torch.autograd.grad(y.square().sum(), inputs)))
    torch.testing.assert_close(*results, rtol=0, atol=0)


def test_the_function_keeps_channels_last():
    x = torch.randn(2, 6, 4, 3).to(memory_format=torch.channels_last)
    assert maxout(x, 4).is_contiguous(memory_format=torch.channels_last)


def test_nan_in_any_input_is_the_maximum():
    x = torch.zeros(1, 4, 1, 1)
    x[0, 0], x[0, 3] = torch.nan, torch.nan
    assert maxout(x, 2).isnan().all()
