import pytest
import torch

from benchmarks.activations import CONTENDERS, changes_input, count, create, gradient_error, make_input


@pytest.mark.parametrize(("name", "maps"), [("LeakyReLU in place", 1), ("Mish, nn.Mish", 2), ("Mish, naive", 3)])
def test_an_activation_keeps_the_maps_that_its_formula_needs(name, maps):
    """In place: the result alone. One operator: input and result. x * tanh(softplus(x)): tanh's result too.

    softplus and the product share x, and the next layer shares the product's result.
    """
    assert count(name, 32)[0] == pytest.approx(maps, abs=0.01)  # and the statistics of BatchNorm


def test_only_those_in_place_change_their_input():
    assert {name for name in CONTENDERS if changes_input(name)} == {
        "LeakyReLU in place",
        "Swish, in place as in the thread",
    }


@pytest.mark.parametrize("name", CONTENDERS)
def test_each_gradient_is_that_of_float64_up_to_rounding(name):
    assert 0 < gradient_error(name) < 1e-5


@pytest.mark.parametrize("kind", ["LeakyReLU", "Swish", "Mish"])
def test_all_forms_of_an_activation_are_the_same_function(kind):
    x = make_input(2, 8)
    outputs = [create(name)(x.clone()) for name in CONTENDERS if name.startswith(kind)]
    for other in outputs[1:]:
        torch.testing.assert_close(other, outputs[0])
