"""The kernels of normalization, activation and merge, in Triton's interpreter, against autograd in double precision."""

import pytest
import torch
from torch import Tensor

from tests.canaries import fence, fence_allocations
from tests.layers.kernels.float64 import Case, compute, create_arguments, make_map

pytestmark = pytest.mark.interpreter

ACTS = ("linear", "relu", "leaky", "mish", "swish", "prelu")
CASES = [
    *(Case(act) for act in ACTS),
    *(Case("linear", act, (0,)) for act in ACTS),
    Case("mish", "mish", (0, 0, 0), shares="per_feature"),
    Case("mish", "prelu", (0, -2, 3), shares="per_channel", slopes="one"),
    Case("prelu", "linear", (0, 1), shares="per_channel", slopes="one", groups=2),
    Case("leaky", "mish", (0,), kind="max"),
    Case("linear", "linear", (0, -3), kind="max", groups=3),
    Case("mish", groups=3),
    Case("linear", "mish", (-1,), groups=0),
    Case("linear", "linear", (0, 0), shares="per_feature", groups=0),
]
SHAPES = {
    "one tile": (6, 8, 4, 4),
    "odd channels": (6, 7, 3, 5),
    "two blocks of channels": (6, 67, 2, 3),
    "1x1 maps": (6, 5, 1, 1),
    "many rows": (6, 3, 19, 37),
}
TOLERANCE = {torch.float32: 2e-6, torch.float16: 1e-3}
"""Largest error as a share of the largest element. Of half precision, results are rounded to 11 bits."""


def draw(shape: tuple[int, ...], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return make_map(shape, dtype, generator), make_map(shape, dtype, generator)


def fence_all(arguments):
    """Return the arguments with every tensor between canaries."""
    fences = []

    def surround(value):
        if isinstance(value, list):
            return [surround(each) for each in value]
        if not isinstance(value, Tensor):
            return value
        fences.append(fence(value))
        return fences[-1].tensor

    return tuple(map(surround, arguments)), fences


def require_close(found: Tensor, expected: Tensor, tolerance: float):
    assert found.shape == expected.shape
    largest = expected.abs().max().clamp_min(1e-3) if expected.numel() else 1
    assert ((found.double() - expected).abs() <= tolerance * largest).all()


def require_value(launch, case: Case, x: Tensor, gradient: Tensor):
    arguments, fences = fence_all(create_arguments(case, x))
    with fence_allocations() as allocated:
        value = launch.norm_merge(*arguments)
    require_close(value, compute(case, gradient, arguments).value, TOLERANCE[x.dtype])
    assert all(each.is_intact() for each in fences + allocated)


def require_gradients(launch, case: Case, x: Tensor, gradient: Tensor):
    arguments, fences = fence_all((gradient, *create_arguments(case, x)))
    with fence_allocations() as allocated:
        of_x, rows, of_others = launch.norm_merge_backward(*arguments)
    expected = compute(case, gradient, arguments[1:])
    require_close(of_x, expected.of_x, 2 * TOLERANCE[x.dtype])
    for found, row in zip(rows, expected.rows, strict=True):
        require_close(found, row, 5e-6)
    if case.kind == "max" or case.shares != "none":
        for found, other in zip(of_others, expected.of_others, strict=True):
            require_close(found, other, TOLERANCE[x.dtype])
    for merged in of_others if case.kind == "sum" and case.shares == "none" else ():
        require_close(merged, expected.of_merged, TOLERANCE[x.dtype])
    assert all(each.is_intact() for each in fences + allocated)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_values_of_every_expression(launch, case):
    require_value(launch, case, *draw(SHAPES["odd channels"], torch.float32))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_gradients_of_every_expression(launch, case):
    require_gradients(launch, case, *draw(SHAPES["odd channels"], torch.float32))


RICH = Case("mish", "leaky", (0, -1), shares="per_feature", groups=2)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_values_of_every_shape(launch, shape, dtype):
    require_value(launch, RICH, *draw(shape, dtype))


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_gradients_of_every_shape(launch, shape, dtype):
    require_gradients(launch, RICH, *draw(shape, dtype))


@pytest.mark.parametrize("require", [require_value, require_gradients])
def test_one_image(launch, require):
    require(launch, Case("mish"), *draw((1, 5, 3, 7), torch.float32))


@pytest.mark.parametrize("require", [require_value, require_gradients])
def test_a_slice_of_the_channels_of_a_wider_map(launch, require):
    wide, gradient = draw((4, 19, 3, 5), torch.float32)
    require(launch, Case("mish", "mish", (0,), shares="per_channel"), wide[:, 3:10], gradient[:, 5:12])


def test_the_gradient_goes_to_the_first_of_equal_inputs_of_a_maximum(launch):
    x, gradient = draw((2, 4, 3, 3), torch.float32)
    arguments = create_arguments(Case(kind="max", widths=(0,), groups=0), x)
    arguments[9][0] = x.clone()
    of_x, _, (of_other,) = launch.norm_merge_backward(gradient, *arguments)
    assert torch.equal(of_x, gradient)
    assert not of_other.any()


@pytest.mark.parametrize("parts", [1, 3])
def test_apply_with_the_sums_of_reduce_is_backward(launch, parts, monkeypatch):
    """Reduce and apply, with a sum over processes between them, are what synchronized normalization calls."""
    monkeypatch.setattr(launch, "PROGRAMS", parts)
    x, gradient = draw((4, 5, 9, 31), torch.float32)
    arguments = create_arguments(Case("mish", "mish", (0,), shares="per_feature"), x)
    of_x, rows, of_others = launch.norm_merge_backward(gradient, *arguments)
    found = launch.norm_merge_reduce(gradient, *arguments)
    assert torch.equal(found, rows)
    again, others = launch.norm_merge_apply(gradient, rows[:2, None] / x[:, 0].numel(), *arguments)
    require_close(again, of_x.double(), 1e-6)
    assert torch.equal(others[0], of_others[0])


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # the interpreter computes with numpy, which warns of both
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("act", ACTS)
def test_nan_and_infinity_go_through_activations_as_in_torch(launch, act, bad):
    x, gradient = draw((2, 4, 3, 3), torch.float32)
    x[0, 1, 2, 0] = bad
    case = Case("linear", act, (0,), groups=0)
    arguments = create_arguments(case, x)
    expected = compute(case, gradient, arguments)
    of_x, _, _ = launch.norm_merge_backward(gradient, *arguments)
    torch.testing.assert_close(launch.norm_merge(*arguments), expected.value.float(), equal_nan=True)
    if (act, bad) != ("mish", torch.inf):  # torch's formula has infinity * 0 there; its limit, 1, is better
        torch.testing.assert_close(of_x, expected.of_x.float(), equal_nan=True)
