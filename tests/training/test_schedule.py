"""The learning rate follows darknet's numbers."""

import pytest
import torch

from backbones.training.schedule import poly_with_burn_in, set_lr


def test_the_rate_is_what_darknet_used_in_six_updates():
    """policy=poly, burn_in=2, power=4, max_batches=20, learning_rate=0.1 in a real darknet build."""
    recorded = [0.0062500, 0.0656100, 0.0522006, 0.0409600, 0.0316406, 0.0240100]
    rate = poly_with_burn_in(lr=0.1, total_steps=20, burn_in=2, power=4)
    assert [rate(step) for step in range(1, 7)] == pytest.approx(recorded, rel=2e-5)


def test_omega_reaches_its_landmarks():
    rate = poly_with_burn_in(lr=0.1, total_steps=1_200_000, burn_in=1000, power=4)
    assert rate(500) == pytest.approx(0.1 / 16)
    assert rate(600_000) == pytest.approx(0.1 / 16)
    assert rate(1_200_000) == 0


def test_without_burn_in_the_first_rate_is_almost_the_full_one():
    assert poly_with_burn_in(lr=1.0, total_steps=100, burn_in=0, power=1)(1) == pytest.approx(0.99)


def test_every_group_gets_the_rate():
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))]} for _ in range(2)]
    optimizer = torch.optim.SGD(groups, lr=1.0)
    set_lr(optimizer, 0.25)
    assert [group["lr"] for group in optimizer.param_groups] == [0.25, 0.25]
