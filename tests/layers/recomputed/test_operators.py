"""The operators as torch's library sees them: shapes without data, changed arguments, and the choice of kernels."""

from types import SimpleNamespace

import pytest
import torch

from backbones.layers.recomputed import operators
from backbones.layers.recomputed.expression import Expression
from backbones.layers.recomputed.normalization import measure_groups
from tests.layers.recomputed.expressions import SHAPE, Case, create_inputs

CASES = [
    Case("mish", "mish"),
    Case("prelu", "prelu_channel", (6, 4), "sum", 1, 2),
    Case("swish", "linear", (4, 9), "max", 0, 2, torch.channels_last),
    Case("linear", "relu", (6,), "sum", 0, 0),
]
CHECKS = ("test_schema", "test_faketensor")


def create_arguments(case: Case) -> Expression:
    inputs = create_inputs(case)
    x, weight, bias, shares, slopes, out_slopes = (None if t is None else t.detach().float() for t in inputs[:-1])
    others = [other.detach().float() for other in inputs.others]
    mean, var = measure_groups(x, case.groups) if case.groups else (None, None)
    acts = [act.removesuffix("_channel") for act in (case.act, case.out_act)]
    inner, outer = (acts[0], 0.1, slopes), (acts[1], 0.1, out_slopes)
    return Expression(x, mean, var, weight, bias, 1e-5, *inner, others, shares, case.kind, *outer)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_results_without_data_have_the_shapes_types_and_strides_of_those_with_data(case):
    e = create_arguments(case)
    gradient, library = torch.randn_like(e.x), torch.ops.backbones
    torch.library.opcheck(library.norm_merge.default, tuple(e), test_utils=CHECKS)
    torch.library.opcheck(library.norm_merge_backward.default, (gradient, *e), test_utils=CHECKS)
    torch.library.opcheck(library.norm_merge_reduce.default, (gradient, *e), test_utils=CHECKS)
    if e.mean is not None:
        sums = torch.randn(2, len(e.mean), SHAPE[1])
        torch.library.opcheck(library.norm_merge_apply.default, (gradient, sums, *e), test_utils=CHECKS)


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_the_statistics_declare_that_they_change_the_running_ones(kind):
    running = (torch.zeros(6), torch.ones(6), torch.tensor(0))
    arguments = (torch.randn(SHAPE).to(kind), 2, *running, 0.9, 0.1)
    torch.library.opcheck(torch.ops.backbones.batch_statistics.default, arguments, test_utils=CHECKS)


@pytest.mark.parametrize("size", [(6, 4), (5, 7)])
def test_the_pools_have_shapes_without_data(size):
    largest, place = torch.ops.backbones.max_pool_2x2(torch.randn(2, 3, *size))
    torch.library.opcheck(torch.ops.backbones.max_pool_2x2.default, (torch.randn(2, 3, *size),), test_utils=CHECKS)
    backward = torch.ops.backbones.max_pool_2x2_backward.default
    torch.library.opcheck(backward, (torch.randn_like(largest), place, *size), test_utils=CHECKS)


@pytest.mark.parametrize("case", CASES[:3], ids=str)
def test_the_two_halves_of_backward_make_the_whole(case):
    """Processes that share a normalization run them with a sum over all processes between."""
    e = create_arguments(case)
    gradient = torch.randn_like(e.x)
    whole = torch.ops.backbones.norm_merge_backward(gradient, *e)
    rows = torch.ops.backbones.norm_merge_reduce(gradient, *e)
    torch.testing.assert_close(rows, whole[1])
    if len(e.mean) == 1:
        sums = rows[:2, None] / e.x[:, 0].numel()
        of_x, of_others = torch.ops.backbones.norm_merge_apply(gradient, sums, *e)
        torch.testing.assert_close((of_x, of_others), (whole[0], whole[2]))


@pytest.mark.parametrize(("accepted", "expected"), [(True, "kernel"), (False, "formula"), (None, "formula")])
def test_a_gpu_runs_the_kernel_where_there_is_one_that_accepts_the_maps(monkeypatch, accepted, expected):
    kernels = SimpleNamespace(accepts=lambda *_: accepted, name=lambda x: ("kernel", x))
    monkeypatch.setattr(operators, "triton_kernels", lambda: None if accepted is None else kernels)
    assert operators._choose("name", lambda x: ("formula", x))(3) == (expected, 3)
