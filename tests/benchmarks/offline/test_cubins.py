"""Figures that are read from machine code change with what the code does."""

import pytest
import torch

triton = pytest.importorskip("triton")
tl = pytest.importorskip("triton.language")
pytest.importorskip("triton.backends.nvidia")


@triton.jit
def copy(x, y, count, block: tl.constexpr):
    place = tl.program_id(0) * block + tl.arange(0, block)
    tl.store(y + place, tl.load(x + place, mask=place < count), mask=place < count)


@triton.jit
def centre(x, y, block: tl.constexpr):
    place = tl.arange(0, block)
    values = tl.load(x + place)
    tl.store(y + place, values - tl.sum(values, 0))


X, Y = torch.zeros(2, 4096, dtype=torch.bfloat16).unbind()


def compile_one(launch, architecture=90):
    from benchmarks.offline.cubins import compile_launches  # noqa: PLC0415  (it needs Triton)

    (binary,) = compile_launches(launch, architecture)
    return binary


@pytest.mark.parametrize("architecture", [80, 90, 100])
def test_eight_aligned_elements_move_at_once(architecture):
    binary = compile_one(lambda: copy[(4,)](X, Y, 4096, block=1024), architecture)
    assert (binary.wide_loads, binary.wide_stores, binary.narrow_loads, binary.narrow_stores) == (1, 1, 0, 0)


@pytest.mark.parametrize("arguments", [(X[1:], Y[1:], 4080), (X, Y, 4095)], ids=["pointers", "count"])
def test_without_alignment_each_element_moves_alone(arguments):
    binary = compile_one(lambda: copy[(4,)](*arguments, block=1024))
    assert (binary.wide_loads, binary.wide_stores, binary.narrow_loads, binary.narrow_stores) == (0, 0, 8, 8)


@pytest.mark.parametrize(("registers", "spills"), [(64, True), (255, False)])
def test_spills_are_seen_where_a_tile_does_not_fit_the_registers(registers, spills):
    """Each of 32 threads holds 128 values of single precision."""
    x, y = torch.zeros(2, 4096).unbind()
    binary = compile_one(lambda: centre[(1,)](x, y, block=4096, num_warps=1, maxnreg=registers))
    assert binary.registers <= registers
    assert (binary.spills > 0, binary.stack > 0) == (spills, spills)
