"""The operation computes what torch's own functions do, in value and in every gradient."""

from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbones.layers.recomputed.function import Norm, norm_merge
from backbones.layers.recomputed.pointwise import Pointwise
from tests.layers.recomputed.expressions import ACTS, WIDTH, Case, compute, create_inputs, derive_all, expect

FORMATS = (torch.contiguous_format, torch.channels_last)
NAMES = tuple(ACTS)
MERGES = {"plain": ("sum", 0), "per_feature": ("sum", 1), "per_channel": ("sum", WIDTH), "max": ("max", 0)}


def assert_exact(case: Case) -> None:
    inputs = create_inputs(case)
    ours, exact = (derive_all(run(case, inputs), inputs) for run in (compute, expect))
    for actual, expected in zip(ours, exact, strict=True):
        assert (actual - expected).abs().max() <= 1e-12 * expected.abs().max(), case


@pytest.mark.parametrize("merge", MERGES)
@pytest.mark.parametrize("act", NAMES)
def test_value_and_gradients_are_those_of_torchs_own_functions(act, merge):
    kind, columns = MERGES[merge]
    for number, (groups, memory_format) in enumerate(product((1, 2), FORMATS)):
        out_act = NAMES[(NAMES.index(act) + 2 * number) % len(NAMES)]  # every pair is met in one of the merges
        assert_exact(Case(act, out_act, (6, 4, 9), kind, columns, groups, memory_format))


@pytest.mark.parametrize("out_act", NAMES)
@pytest.mark.parametrize("merge", MERGES)
def test_a_merge_without_normalization_has_the_value_and_gradients_of_torchs_own_functions(merge, out_act):
    for memory_format in FORMATS:
        kind, columns = MERGES[merge]
        assert_exact(Case("linear", out_act, (6, 4, 9), kind, columns, 0, memory_format))


@pytest.mark.parametrize("act", NAMES)
def test_without_other_inputs_it_is_normalization_and_activation(act):
    assert_exact(Case(act, others=(), groups=2))


@pytest.mark.parametrize(
    "case",
    [
        Case("mish", "swish", (3, 2), "sum", 1, 2),
        Case("prelu_channel", "mish", (5,), "max", 0, 1),
        Case("swish", "prelu", (3, 4), "sum", 3, 0)._replace(act="linear"),
    ],
    ids=str,
)
def test_gradients_are_those_of_finite_differences(case):
    inputs = create_inputs(case, shape=(4, 3, 2, 1))
    count = len(inputs.leaves) - len(case.others)

    def run(*leaves: Tensor) -> Tensor:
        given = iter(leaves[:count])
        taken = [next(given) if isinstance(x, Tensor) else None for x in inputs[:-1]]
        return compute(case, type(inputs)(*taken, list(leaves[count:])))

    assert torch.autograd.gradcheck(run, inputs.leaves)


def find_errors(run, inputs) -> list[float]:
    """Return the largest error of value and gradients of normalization and Mish in single precision, over the scale."""
    exact = derive_all(run(*inputs), inputs)
    single = type(inputs)(*(x if x is None else x.detach().float().requires_grad_() for x in inputs[:-1]), [])
    rounded = derive_all(run(*single), single)
    return [((a.double() - e).abs().max() / e.abs().max()).item() for a, e in zip(rounded, exact, strict=True)]


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("shape", [(8, 48, 14, 14), (8, 96, 9, 9)])
def test_single_precision_loses_no_more_than_torch_does(shape, memory_format):
    def run_ours(x, weight, bias, *_):
        return norm_merge(x, Norm(weight, bias, 1e-5, None, None, None, 1.0, 0.0), Pointwise("mish"))

    def run_torch(x, weight, bias, *_):
        return F.mish(F.batch_norm(x, None, None, weight, bias, True, 0.0, 1e-5))

    inputs = create_inputs(Case(others=(), memory_format=memory_format), shape=shape)
    ours, torchs = find_errors(run_ours, inputs), find_errors(run_torch, inputs)
    assert len(ours) == 4
    assert all(mine <= 1.5 * theirs for mine, theirs in zip(ours, torchs, strict=True)), (ours, torchs)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("merge", MERGES)
@pytest.mark.parametrize("place", ["x", "other", "gradient"])
def test_nan_and_infinity_reach_the_numbers_that_they_reach_in_torch(place, merge, value):
    kind, columns = MERGES[merge]
    case = Case("mish", "linear", (6, 4, 9), kind, columns, 2)
    results = []
    for run in (compute, expect):
        inputs = create_inputs(case)
        gradient = torch.ones(inputs.x.shape, dtype=torch.float64)
        with torch.no_grad():
            {"x": inputs.x, "other": inputs.others[1], "gradient": gradient}[place][1, 2, 3, 1] = value
        y = run(case, inputs)
        results.append([y.detach(), *torch.autograd.grad(y, inputs.leaves, gradient)])
    for actual, expected in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected, equal_nan=True)


@pytest.mark.parametrize("groups", [1, 2])
def test_running_statistics_are_those_of_batch_norm_for_each_group_in_turn(groups):
    """With ``take`` the momentum over the number of groups, by the mean of the groups."""
    x = torch.randn(4, 3, 5, 2, dtype=torch.float64) * 3 + 1
    theirs = [nn.BatchNorm2d(3, momentum=1.0).double() for _ in range(groups)]
    for norm, part in zip(theirs, x.split(4 // groups), strict=True):
        norm(part)
    mean, var, tracked = torch.full((3,), 5.0).double(), torch.full((3,), 7.0).double(), torch.tensor(3)
    weight, bias = torch.ones(2, 3, dtype=torch.float64)
    norm_merge(x, Norm(weight, bias, 1e-5, mean, var, tracked, 0.75, 0.25 / groups, groups))
    torch.testing.assert_close(mean, 0.75 * 5 + 0.25 * torch.stack([norm.running_mean for norm in theirs]).mean(0))
    torch.testing.assert_close(var, 0.75 * 7 + 0.25 * torch.stack([norm.running_var for norm in theirs]).mean(0))
    assert tracked == 3 + groups


def test_a_second_derivative_is_refused():
    """`set_recompute` is the remedy; a wrong number would be worse."""
    inputs = create_inputs(Case("mish"))
    loss = compute(Case("mish"), inputs).square().sum()
    (gradient,) = torch.autograd.grad(loss, inputs.x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_every_kept_tensor_is_one_that_others_keep_or_a_vector():
    """A plain sum without activation does not keep its other inputs."""

    def find_kept(case: Case) -> list[str]:
        inputs, kept = create_inputs(case), []
        names = {id(x): name for name, x in inputs._asdict().items()}
        names |= {id(x): f"other {index}" for index, x in enumerate(inputs.others)}
        with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
            compute(case, inputs)
        return sorted(names[id(x)] for x in kept if x.dim() == 4)

    everything = ["other 0", "other 1", "other 2", "x"]
    assert find_kept(Case("mish")) == ["x"]
    assert find_kept(Case("mish", "mish")) == everything
    assert find_kept(Case("mish", columns=1)) == everything
    assert find_kept(Case("mish", kind="max")) == everything


@pytest.mark.parametrize("merge", MERGES)
def test_no_input_is_changed_in_either_direction(merge):
    kind, columns = MERGES[merge]
    case = Case("leaky", "relu", (6, 4, 9), kind, columns)
    inputs = create_inputs(case)
    copies = [x.detach().clone() for x in inputs.leaves]
    derive_all(compute(case, inputs), inputs)
    assert all(map(torch.equal, inputs.leaves, copies))
