"""BatchNorm layers whose statistics cannot be right are named."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from backbones.training.health.batch_norm import BatchNormStatistics
from backbones.training.health.monitor import Every, Finding, Row
from backbones.training.reading import read_device

ALONE: Any = SimpleNamespace(gather=lambda values: values)


def norms(**changed) -> nn.Sequential:
    """Two layers, the second of ten channels; ``changed`` variances of it by channel."""
    model = nn.Sequential(nn.BatchNorm2d(4), nn.BatchNorm2d(10), nn.BatchNorm2d(3, track_running_stats=False))
    for channel, value in changed.items():
        model[1].running_var[int(channel[1:])] = value  # type: ignore[index]
    return model


def look(model: nn.Module, accelerator: Any = ALONE) -> list[Finding] | None:
    monitor = BatchNormStatistics(model, accelerator)
    return monitor.judge(Row(500), read_device([monitor.collect(500)])[0])


def test_a_variance_above_ten_thousand_is_too_large():
    assert look(norms(c3=9e3)) == []
    (found,) = look(norms(c3=1.1e4)) or []
    assert (found.alarm, found.place) == ("batch_norm", "1")
    assert found.text == "the running variance of 1 is up to 1.1e+04"


def test_channels_without_variance_are_too_many_from_a_fifth_on():
    """Weight decay takes single channels out of good networks."""
    assert look(norms(c3=0.0)) == []
    (found,) = look(norms(c3=0.0, c4=1e-9, c5=9e-7)) or []
    assert found.text == "30% of the channels of 1 have a running variance below 1e-06"


def test_processes_whose_variances_differ_by_more_than_ten_times_are_named():
    for factor, alarms in ((9.0, 0), (0.11, 0), (11.0, 1), (0.09, 1)):
        two: Any = SimpleNamespace(gather=lambda own, factor=factor: torch.cat([own, own * factor]))
        found = [finding for finding in look(nn.BatchNorm2d(4), two) or [] if "process" in finding.text]
        assert len(found) == alarms, factor
    assert found[0].text == "the mean running variance of  is 1 in process 0 and 0.09 in process 1"


def test_layers_are_looked_at_every_500_steps():
    monitor = BatchNormStatistics(norms(), ALONE)
    assert [step for step in range(50, 1501, 50) if monitor.collect(step) is not None] == [500, 1000, 1500]
    monitor.restart()
    assert monitor.collect(2000) is None
    assert monitor.collect(2500) is not None
    assert monitor.judge(Row(2510), []) is None


def test_a_network_without_batch_norm_has_nothing_to_watch():
    assert BatchNormStatistics(nn.Linear(2, 2), ALONE).collect(500) is None


@pytest.mark.parametrize(("scale", "alarms"), [(1.0, 0), (1e4, 1)])
def test_images_of_another_scale_are_found_in_a_real_pass(scale, alarms):
    """The variance of a sum of 27 pixels of such images is above 1e4 at once."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, momentum=0.1))
    for _ in range(50):
        model(scale * torch.rand(4, 3, 8, 8))
    assert len(look(model) or []) == alarms
    assert Every(500).is_due(500)
