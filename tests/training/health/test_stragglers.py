"""A process that takes longer on its own is named; two that wait for each other are not."""

import time
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from backbones.training.health.monitor import Finding, Row
from backbones.training.health.stragglers import ForwardTimer, Stragglers

CPU = torch.device("cpu")


def watch(*ratios: float, waited: float = 0.1, steps: int = 2000) -> list[tuple[int, Finding]]:
    """Findings by step, where the own times of all processes are these ratios to the one of this process."""
    factors = torch.tensor(ratios)
    accelerator: Any = SimpleNamespace(device=CPU, gather=lambda own: own * factors)
    monitor, found = Stragglers(nn.Identity(), accelerator), []
    for step in range(50, steps + 1, 50):
        values = monitor.collect(step)
        judged = monitor.judge(Row(step, [1.0] * 50, waited=50 * waited), [] if values is None else values.tolist())
        found += [(step, finding) for finding in judged or []]
    return found


def test_a_process_that_takes_a_fifth_longer_is_named_at_the_second_look():
    found = watch(1.0, 1.0, 1.2, 0.99)
    assert [step for step, _ in found] == [1000, 1500, 2000]
    assert found[0][1].text == "process 2 takes 120 ms of its own in each step, the median is 100 ms"


@pytest.mark.parametrize("ratios", [(1.0, 1.1, 1.05, 0.9), (1.0,), (1.0, 0.75), (0.0, 0.0)])
def test_processes_that_are_about_as_fast_are_left_alone(ratios):
    assert watch(*ratios) == []


def test_one_slow_look_is_no_straggler():
    assert watch(1.0, 1.0, 1.5, steps=700) == []


def test_slow_looks_with_a_good_one_between_are_no_straggler():
    accelerator: Any = SimpleNamespace(device=CPU, gather=lambda own: own)
    monitor = Stragglers(nn.Identity(), accelerator)
    slow, good = [0.1, 0.2], [0.1, 0.1]
    judged = [monitor.judge(Row(step), values) for step, values in ((500, slow), (1000, good), (1500, slow))]
    assert judged == [[], [], []]
    assert monitor.judge(Row(2000), slow)
    assert monitor.judge(Row(2500), slow[::-1]) == []  # now it is the other one


def test_own_time_is_forward_passes_and_waiting_for_data(clock):
    class Slow(nn.Module):
        def forward(self, x):
            clock.now += 0.3
            return x

    model = Slow()
    accelerator: Any = SimpleNamespace(device=CPU, gather=lambda own: own)
    monitor = Stragglers(model, accelerator)
    for _ in range(4):
        model(torch.zeros(1))
        clock.now += 5.0  # the backward pass, in which processes wait for each other
    assert monitor.judge(Row(480, [1.0, 1.0], waited=0.2), []) is None
    assert monitor.collect(480) is None
    assert monitor.collect(500) == pytest.approx((4 * 0.3 + 0.2) / 2)
    assert monitor.collect(1000) is None  # nothing was measured since


def test_after_a_restart_times_are_measured_anew():
    accelerator: Any = SimpleNamespace(device=CPU, gather=lambda own: own)
    monitor = Stragglers(nn.Identity(), accelerator)
    monitor.judge(Row(480, [1.0], waited=9.0), [])
    monitor.restart()
    assert monitor.collect(490) is None
    monitor.judge(Row(490, [1.0], waited=1.0), [])
    assert monitor.collect(500) == 1.0


def test_a_timer_measures_what_passed():
    class Slow(nn.Module):
        def forward(self, x):
            time.sleep(0.02)
            return x

    model = Slow()
    timer = ForwardTimer(model, CPU)
    for _ in range(3):
        model(torch.zeros(1))
    assert 0.06 <= timer.take() < 1
    assert timer.take() == 0


@pytest.mark.gpu
def test_a_timer_measures_the_work_of_a_gpu():
    device = torch.device("cuda")
    model = nn.Linear(4096, 4096).to(device)
    timer, images = ForwardTimer(model, device), torch.randn(4096, 4096, device=device)
    for _ in range(20):
        model(images)
    torch.cuda.synchronize()
    assert 1e-4 < timer.take() < 10
