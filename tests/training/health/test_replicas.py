"""One bit that differs between two processes is found, and named."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from backbones.training.health.monitor import Finding, Row
from backbones.training.health.replicas import Replicas, checksum
from backbones.training.reading import read_device


def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))


def look(*processes: nn.Module, step: int = 5000) -> list[Finding] | None:
    """Findings of the first process among these."""
    sums = [torch.stack([checksum(p) for p in process.parameters()]) for process in processes]
    accelerator: Any = SimpleNamespace(gather=lambda own: torch.cat([own, torch.stack(sums[1:])]))
    monitor = Replicas(processes[0], accelerator, 5000)
    return monitor.judge(Row(step), read_device([monitor.collect(step), torch.zeros(1)])[0])


def with_one_bit(name: str) -> nn.Module:
    """The same network with the lowest bit of one value turned."""
    other = model()
    other.get_parameter(name).data.view(-1)[1:2].view(torch.int32).bitwise_xor_(1)
    return other


def test_equal_replicas_are_left_alone():
    assert look(model(), model(), model(), model()) == []


def test_the_processes_and_the_first_parameter_that_differ_are_named():
    (found,) = look(model(), model(), with_one_bit("1.bias"), with_one_bit("2.weight")) or []
    assert found.stops
    assert found.text.startswith(
        "at step 5000 the weights of process 2, 3 are not those of process 0, first in 1.bias (2 of 6 parameters)"
    )


def test_parameters_are_compared_every_5000_steps():
    assert look(model(), with_one_bit("0.weight"), step=4950) is None


def test_the_checksum_is_the_sum_of_bits_times_places():
    values = torch.randn(1000, generator=torch.Generator().manual_seed(3))
    bits = values.numpy().view(np.int32).astype(np.int64)
    places = np.arange(1, 1001, dtype=np.int64) * 0x9E3779B97F4A7C1  # wraps around, as torch does
    assert checksum(values) == int((bits * places).sum())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.int8])
def test_any_change_changes_the_checksum(dtype):
    values = torch.arange(1, 121).to(dtype)
    swapped, negated = values.clone(), values.clone()
    swapped[3], swapped[7] = values[7], values[3]
    negated[0] = -values[0]
    sums = {checksum(each).item() for each in (values, swapped, negated, values[:-1])}
    assert len(sums) == 4


def test_zero_and_minus_zero_are_different_bits():
    assert checksum(torch.tensor([0.0, 1.0])) != checksum(torch.tensor([-0.0, 1.0]))


def test_the_memory_order_makes_no_difference():
    values = torch.randn(2, 3, 4, 5)
    assert checksum(values) == checksum(values.contiguous(memory_format=torch.channels_last))
