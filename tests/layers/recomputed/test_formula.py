import pytest
import torch

from backbones.layers.recomputed.expression import Expression
from backbones.layers.recomputed.formula import derive, evaluate
from backbones.layers.recomputed.normalization import measure_groups

LAST = torch.channels_last


def create(*, act="mish", kind="sum", out_act="mish") -> Expression:
    generator = torch.Generator().manual_seed(0)
    x, other = (torch.randn(4, 8, 6, 6, generator=generator).to(memory_format=LAST) for _ in range(2))
    mean, var = measure_groups(x, 2)
    affine = torch.rand(2, 8, generator=generator)
    slopes = torch.rand(2, 8, generator=generator)
    return Expression(x, mean, var, *affine, 1e-5, act, 0.1, slopes[0], [other], None, kind, out_act, 0.1, slopes[1])


@pytest.mark.parametrize("kind", ["sum", "max"])
@pytest.mark.parametrize("act", ["linear", "mish", "prelu"])
def test_maps_and_gradients_keep_channels_last_even_if_the_gradient_is_a_slice_of_nchw(act, kind):
    e = create(act=act, kind=kind, out_act=act)
    gradient = torch.randn(4, 12, 6, 6)[:, 2:10]
    of_x, _, of_others = derive(gradient, e)
    for x in (evaluate(e), of_x, *of_others):
        assert x.is_contiguous(memory_format=LAST), act


def test_half_precision_gives_half_precision_maps_and_rows_of_single_precision():
    e = create()
    half = e._replace(x=e.x.bfloat16(), others=[e.others[0].bfloat16()])
    of_x, rows, (of_merged,) = derive(torch.ones_like(half.x), half)
    assert {evaluate(half).dtype, of_x.dtype, of_merged.dtype} == {torch.bfloat16}
    assert rows.dtype == torch.float32


def test_the_rows_have_the_order_of_their_names():
    """Each parameter is moved alone; the sum of its row is the slope of the sum of the values."""
    e = create(act="prelu", out_act="prelu")._replace(shares=torch.tensor([[0.5], [2.0]]))
    e = Expression(*(x.double() if isinstance(x, torch.Tensor) else x for x in e))._replace(
        others=[e.others[0].double()]
    )
    rows = dict(enumerate(derive(torch.ones_like(e.x), e).rows.sum(1).tolist()))
    step = 1e-6
    for row, name in enumerate(("bias", "weight", "slopes", "shares", "shares", "out_slopes")):
        change = torch.zeros_like(getattr(e, name))
        (change[row - 3] if name == "shares" else change)[:] = step
        up, down = (evaluate(e._replace(**{name: getattr(e, name) + sign * change})).sum().item() for sign in (1, -1))
        assert rows.pop(row) == pytest.approx((up - down) / (2 * step), rel=1e-4), name
    assert not rows
