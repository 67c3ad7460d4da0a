import torch

from backbones.layers.recomputed.expression import Expression
from backbones.layers.recomputed.merging import derive_merge, fit_channels, merge


def create(x, others, *, shares=None, kind="sum") -> Expression:
    return Expression(x, None, None, None, None, 0.0, "linear", 0.0, None, others, shares, kind, "linear", 0.0, None)


def fill(channels: int, value: float) -> torch.Tensor:
    return torch.full((1, channels, 1, 1), value)


def test_a_merge_overwrites_its_first_input_only_where_it_may():
    first, e = fill(2, 1.0), create(fill(2, 1.0), [fill(2, 3.0)])
    assert merge(first, e, inplace=False).flatten().tolist() == [4.0, 4.0]
    assert first.flatten().tolist() == [1.0, 1.0]
    assert merge(first, e, inplace=True) is first


def test_of_equal_inputs_the_first_one_gets_the_gradient():
    inputs = [torch.tensor(row).reshape(1, 4, 1, 1) for row in ([1.0, 2, 5, 2], [3.0, 2, 5, 1], [3.0, 0, 5, 2])]
    of_first, of_others, _ = derive_merge(fill(4, 7.0), inputs[0], create(inputs[0], inputs[1:], kind="max"))
    winners = [[0, 1, 1, 1], [1, 0, 0, 0], [0, 0, 0, 0]]
    for gradient, row in zip((of_first, *of_others), winners, strict=True):
        assert gradient.flatten().tolist() == [7.0 * win for win in row]


def test_a_wider_input_gets_no_gradient_in_the_channels_that_take_no_part():
    for kind, shares in (("max", None), ("sum", torch.ones(2, 1))):
        e = create(fill(2, 0.0), [fill(3, 5.0)], shares=shares, kind=kind)
        _, (of_other,), _ = derive_merge(fill(2, 1.0), e.x, e)
        assert of_other.flatten().tolist() == [1.0, 1.0, 0.0]


def test_shares_are_rounded_to_the_precision_of_the_maps():
    """As the product of a map and a share is, so that autocast gives the sum that it gives without recomputation."""
    x, other = (torch.randn(2, 3, 8, 8).bfloat16() for _ in range(2))
    share = torch.tensor(1 / 3)
    total = merge(x, create(x, [other], shares=share.expand(2, 1)), inplace=False)
    first = (x.float() * share.bfloat16().float()).bfloat16()
    assert total.dtype == torch.bfloat16
    assert torch.equal(total, (first.float() + other.float() * share.bfloat16().float()).bfloat16())


def test_gradients_of_shares_are_summed_in_single_precision():
    x = torch.ones(2, 3, 32, 32, dtype=torch.bfloat16)  # bfloat16 counts to 256 only
    _, _, (of_first, _) = derive_merge(x, x, create(x, [x], shares=torch.ones(2, 1)))
    assert of_first.tolist() == [2048.0] * 3


def test_channels_are_cut_or_filled():
    x = torch.tensor([1.0, 2.0]).reshape(1, 2, 1, 1)
    assert fit_channels(x, 1).flatten().tolist() == [1.0]
    assert fit_channels(x, 3, fill=-1.0).flatten().tolist() == [1.0, 2.0, -1.0]
