"""Canaries see what lies outside of a tensor, and nothing else."""

import pytest
import torch

from tests.canaries import fence, fence_allocations

SHAPES = {
    "contiguous": torch.randn(2, 3, 4, 5),
    "channels_last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
    "one element": torch.randn(1, 1, 1, 1),
    "some channels": torch.randn(2, 8, 4, 5).to(memory_format=torch.channels_last)[:, 2:5],
}


@pytest.mark.parametrize("tensor", SHAPES.values(), ids=SHAPES)
def test_a_fenced_tensor_has_the_values_and_strides_of_the_original(tensor):
    fenced = fence(tensor)
    assert torch.equal(fenced.tensor, tensor)
    assert fenced.tensor.stride() == tensor.stride()


@pytest.mark.parametrize("tensor", SHAPES.values(), ids=SHAPES)
def test_writing_every_element_leaves_the_canaries(tensor):
    fenced = fence(tensor)
    fenced.tensor.fill_(1)
    assert fenced.is_intact()


@pytest.mark.parametrize("tensor", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("side", [-1, 1])
def test_writing_beside_the_tensor_kills_a_canary(tensor, side):
    fenced = fence(tensor, margin=4)
    inside = fenced.inside.nonzero()
    assert fenced.is_intact()
    fenced.buffer[(inside.min() - 1) if side < 0 else (inside.max() + 1)] = 0
    assert not fenced.is_intact()


def test_writing_into_a_channel_between_kills_a_canary():
    fenced = fence(SHAPES["some channels"])
    fenced.buffer[fenced.inside.nonzero()[2] + 1] = 0
    assert not fenced.is_intact()


@pytest.mark.parametrize(("dtype", "value"), [(torch.float16, torch.nan), (torch.float32, 1), (torch.uint8, 1)])
def test_allocations_are_fenced_and_keep_their_layout(dtype, value):
    like = SHAPES["channels_last"]
    with fence_allocations() as fences:
        made = torch.empty_like(like, dtype=dtype)
    assert made.stride() == like.stride()
    assert [fenced.is_intact() for fenced in fences] == [True]
    made.as_strided((1,), (1,), made.storage_offset() + made.numel()).fill_(value)
    assert [fenced.is_intact() for fenced in fences] == [False]


@pytest.mark.parametrize("allocate", [lambda _: torch.empty(3), lambda x: x.new_empty(3), torch.empty_like])
def test_an_element_that_nobody_writes_is_nan(allocate):
    with fence_allocations():
        made = allocate(torch.ones(3))
    assert made.isnan().all()
