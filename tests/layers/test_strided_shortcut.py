import pytest
import torch

from backbones.layers.strided_shortcut import StridedShortcut, add_strided


def add_cell_by_cell(x, source, alpha, beta):
    """pjreddie's shortcut_cpu, one cell at a time."""
    total = x.clone()
    (_, c1, h1, w1), (_, c2, h2, w2) = source.shape, x.shape
    stride, sample = max(w1 // w2, 1), max(w2 // w1, 1)
    for k in range(min(c1, c2)):
        for j in range(min(h1, h2)):
            for i in range(min(w1, w2)):
                cell = total[:, k, j * sample, i * sample]
                total[:, k, j * sample, i * sample] = alpha * cell + beta * source[:, k, j * stride, i * stride]
    return total


@pytest.mark.parametrize("source", [(3, 8), (5, 4), (2, 4), (4, 2), (4, 1), (3, 5), (3, 13)])
@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 1.0), (0.5, -2.0)])
def test_cells_are_added_as_darknets_loop_does(source, alpha, beta):
    torch.manual_seed(0)
    x, other = torch.rand(2, 3, 4, 4), torch.rand(2, source[0], source[1], source[1])
    assert torch.allclose(add_strided(x, other, alpha, beta), add_cell_by_cell(x, other, alpha, beta))


def test_gradients_are_those_of_the_sum():
    torch.manual_seed(0)
    x, source = (torch.rand(shape, dtype=torch.float64, requires_grad=True) for shape in ((1, 3, 2, 2), (1, 2, 4, 4)))
    assert torch.autograd.gradcheck(add_strided, (x, source, 0.5, 2.0))


def test_a_trace_takes_any_size():
    traced = torch.fx.symbolic_trace(StridedShortcut(alpha=0.5, act="leaky"))
    for size in (4, 6):
        x, source = torch.rand(1, 3, size, size), torch.rand(1, 5, 2 * size, 2 * size)
        assert torch.equal(traced(x, source), add_strided(x, source, 0.5))
