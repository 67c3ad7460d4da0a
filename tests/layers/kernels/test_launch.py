"""Sizes of blocks, and the maps that the kernels take. The results of the launches are tested beside each kernel."""

import pytest
import torch

from backbones.layers.recomputed.operators import LAUNCHES


def make(shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype).to(memory_format=torch.channels_last)


@pytest.mark.parametrize("shape", [(256, 64, 128, 128), (4, 2048, 8, 8), (1, 3, 1, 1), (6, 130, 7, 5)])
@pytest.mark.parametrize("inputs", [1, 4])
def test_the_programs_of_a_reduction_cover_every_row_of_a_group_once(launch, shape, inputs):
    groups = 2 if shape[0] > 1 else 1
    tiling = launch.tiling_of(torch.empty(shape, device="meta"), groups, inputs=inputs)
    covered = tiling.parts * tiling.iterations * tiling.rows_of_tile
    assert tiling.cells * groups == shape[0] * shape[2] * shape[3]
    assert covered >= tiling.cells > covered - tiling.iterations * tiling.rows_of_tile
    assert tiling.channel_blocks * tiling.channels_of_tile >= shape[1]
    assert tiling.rows_of_tile * tiling.channels_of_tile <= launch.TILE


@pytest.mark.parametrize(
    "x",
    [
        make((2, 8, 4, 4)),
        make((2, 16, 4, 4))[:, :8],
        make((2, 8, 1, 1), torch.bfloat16),
        make((1, 8, 4, 1), torch.float16),
    ],
    ids=lambda x: f"{tuple(x.shape)} {x.stride()}",
)
def test_nhwc_maps_and_slices_of_their_channels_are_taken(launch, x):
    assert launch.accepts(x, [x], None, 0.1)


@pytest.mark.parametrize(
    "x",
    [
        torch.empty(2, 8, 4, 4),
        make((2, 8, 8, 8))[:, :, ::2, ::2],
        make((2, 8, 4, 4), torch.float64),
        make((0, 8, 4, 4)),
        make((2, 8, 4, 4)).expand(2, 8, 4, 4).flip(3).transpose(2, 3),
    ],
    ids=lambda x: f"{tuple(x.shape)} {x.stride()} {x.dtype}",
)
def test_other_maps_are_left_to_torch(launch, x):
    assert not launch.accepts(make((2, 8, 4, 4)), [x])


def test_more_inputs_than_a_kernel_takes_are_left_to_torch(launch):
    x = make((1, 8, 2, 2))
    assert launch.accepts(x, [x] * launch.MAX_OTHERS)
    assert not launch.accepts(x, x, [x] * (launch.MAX_OTHERS + 1))


@pytest.mark.interpreter
def test_the_kernels_of_each_operator_are_counted(launch, monkeypatch):
    """The table that the counts of launches take is true."""
    runs: list[str] = []
    kind = type(launch.write_value)
    start = kind.run
    monkeypatch.setattr(kind, "run", lambda self, *args, **kwargs: (runs.append(""), start(self, *args, **kwargs))[1])
    x, rows = torch.randn(2, 8, 3, 3).to(memory_format=torch.channels_last), [torch.ones(1, 8)] * 2
    vectors = [torch.ones(8)] * 2
    tail = ("mish", 0.0, None, [x], torch.ones(2, 1), "sum", "linear", 0.0, None)
    arguments = (x, *rows, *vectors, 1e-5, *tail)
    counts = {}
    for name, call in {
        "batch_statistics": lambda: launch.batch_statistics(x, 1, None, None, None, 1.0, 0.0),
        "norm_merge": lambda: launch.norm_merge(*arguments),
        "norm_merge_backward": lambda: launch.norm_merge_backward(x, *arguments),
        "norm_merge_reduce": lambda: launch.norm_merge_reduce(x, *arguments),
        "max_pool_2x2": lambda: launch.max_pool_2x2(x),
    }.items():
        runs.clear()
        call()
        counts[f"backbones::{name}"] = len(runs)
    assert counts == {name: LAUNCHES.get(name, 1) for name in counts}
