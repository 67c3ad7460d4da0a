import pytest
import torch

from backbones.layers.recomputed.expression import Expression, memory_format_of

X, ROW = torch.zeros(2, 3, 4, 4), torch.ones(1, 3)


def create(*, norm=True, act="linear", others=1, shares=None, kind="sum", out_act="linear") -> Expression:
    mean, var = (ROW, ROW) if norm else (None, None)
    return Expression(
        X, mean, var, ROW[0], ROW[0], 1e-5, act, 0.0, None, [X] * others, shares, kind, out_act, 0.0, None
    )


@pytest.mark.parametrize(
    ("options", "rows"),
    [
        ({}, ["bias", "weight"]),
        ({"norm": False}, []),
        ({"act": "prelu", "out_act": "prelu"}, ["bias", "weight", "slopes", "out_slopes"]),
        ({"norm": False, "shares": ROW.expand(2, 3), "out_act": "prelu"}, ["share", "share", "out_slopes"]),
        ({"act": "prelu", "shares": ROW.expand(2, 3)}, ["bias", "weight", "slopes", "share", "share"]),
    ],
)
def test_the_rows_name_the_parameters_in_the_order_of_the_sums(options, rows):
    assert create(**options).rows == rows


@pytest.mark.parametrize(
    ("options", "has_own"),
    [
        ({"out_act": "mish"}, True),
        ({"out_act": "mish", "others": 0}, False),
        ({"out_act": "mish", "norm": False}, False),
        ({}, False),
        ({"out_act": "mish", "kind": "max"}, False),
        ({"out_act": "mish", "shares": ROW.expand(2, 3)}, False),
    ],
)
def test_the_gradient_of_the_merged_map_is_a_third_one_behind_an_activation_of_a_plain_sum_only(options, has_own):
    assert create(**options).has_own_gradient_of_merge == has_own


def test_the_memory_order_is_that_of_the_map_and_nchw_where_both_are_possible():
    x = torch.zeros(2, 3, 4, 4)
    assert memory_format_of(x) == torch.contiguous_format
    assert memory_format_of(x.to(memory_format=torch.channels_last)) == torch.channels_last
    assert memory_format_of(torch.zeros(2, 3, 1, 1).to(memory_format=torch.channels_last)) == torch.contiguous_format
