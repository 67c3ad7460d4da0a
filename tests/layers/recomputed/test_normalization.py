import pytest
import torch

from backbones.layers.recomputed.expression import Expression
from backbones.layers.recomputed.normalization import derive_normalization, measure_groups, normalize, update_running


def create_map(*, kind=torch.float64):
    generator = torch.Generator().manual_seed(0)
    return (torch.randn(6, 3, 4, 5, generator=generator, dtype=torch.float64) * 3 + 1).to(kind)


@pytest.mark.parametrize("groups", [1, 2, 3])
def test_each_group_of_consecutive_images_has_its_own_mean_and_biased_variance(groups):
    x = create_map()
    var, mean = torch.var_mean(x.unflatten(0, (groups, -1)), (1, 3, 4), correction=0)
    torch.testing.assert_close(measure_groups(x, groups), (mean, var))


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_maps_of_half_precision_are_measured_in_single_precision(memory_format):
    x = (create_map() + 100).bfloat16().to(memory_format=memory_format)
    var, mean = torch.var_mean(x.double(), (0, 2, 3), correction=0)
    measured = measure_groups(x, 1)
    torch.testing.assert_close(measured, (mean[None].float(), var[None].float()), rtol=1e-5, atol=0)


def test_running_statistics_take_the_sum_of_the_groups_with_unbiased_variances():
    mean, var, tracked = torch.tensor([1.0]), torch.tensor([2.0]), torch.tensor(5)
    update_running((mean, var, tracked), (torch.tensor([[3.0], [4.0]]), torch.tensor([[6.0], [7.0]])), 0.5, 2, cells=5)
    assert (mean.item(), var.item(), tracked.item()) == (0.5 * 1 + 2 * 7, 0.5 * 2 + 2 * 13 * 5 / 4, 7)


def create_expression(x, groups, weight):
    mean, var = measure_groups(x, groups)
    bias = torch.tensor([1.0, 0.0, -1.0], dtype=weight.dtype)
    return Expression(x, mean, var, weight, bias, 1e-3, "linear", 0.0, None, [], None, "sum", "linear", 0.0, None)


WEIGHT = torch.tensor([2.0, 0.5, -1.0], dtype=torch.float64)


@pytest.mark.parametrize("groups", [1, 2])
def test_gradients_from_the_sums_of_the_same_images_are_those_without_sums(groups):
    x = create_map()
    gradient = torch.randn_like(x)
    e = create_expression(x, groups, WEIGHT)
    standard = normalize(e._replace(weight=torch.ones_like(WEIGHT), bias=torch.zeros_like(WEIGHT)))
    sums = torch.stack([part.unflatten(0, (groups, -1)).mean((1, 3, 4)) for part in (gradient, gradient * standard)])
    torch.testing.assert_close(derive_normalization(gradient, e, sums), derive_normalization(gradient, e, None))


def test_sums_of_half_precision_maps_keep_single_precision():
    x = create_map(kind=torch.bfloat16)
    gradient = torch.ones_like(x)
    e = create_expression(x, 1, WEIGHT.float())
    of_x, (of_bias, of_weight) = derive_normalization(gradient, e, torch.zeros(2, 1, 3))
    assert (of_x.dtype, of_bias.dtype, of_weight.dtype) == (torch.bfloat16, torch.float32, torch.float32)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_parameters_of_half_precision_are_accepted(kind):
    """Torch's kernel takes parameters in the precision of the statistics or of the map, but not of both."""
    half = create_expression(create_map(kind=kind), 2, WEIGHT.to(kind))
    single = half._replace(weight=WEIGHT.float(), bias=half.bias.float())
    assert torch.equal(normalize(half), normalize(single))
    gradient = torch.randn(6, 3, 4, 5).to(kind)
    assert torch.equal(derive_normalization(gradient, half, None)[0], derive_normalization(gradient, single, None)[0])


def test_without_normalization_the_map_and_its_gradient_pass_unchanged():
    x, gradient = create_map(), create_map()
    e = create_expression(x, 1, WEIGHT)._replace(mean=None, var=None)
    assert normalize(e) is x
    assert derive_normalization(gradient, e, None) == (gradient, [])
