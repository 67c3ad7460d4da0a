"""Groups of images and synchronized processes: the same weights after 20 steps, whatever divides a step."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.probes import batch_norm_groups as probe

ROOT = Path(__file__).parents[2]
LIMITS = {torch.float64: 1e-6, torch.float32: 1e-4}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The weights that 1, 2 and 4 real processes reach."""
    folder = tmp_path_factory.mktemp("groups")
    command = [sys.executable, "-m", "tests.probes.batch_norm_groups", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def largest_difference(states: list[dict[str, torch.Tensor]]) -> float:
    first, second = states
    return max(
        float((value - second[name]).norm() / value.norm())
        for name, value in first.items()
        if value.is_floating_point()
    )


@pytest.mark.parametrize("case", [case for case in probe.CASES if (case.count, case.parts) != (1, 1)], ids=str)
def test_the_weights_are_those_of_one_process_and_one_part(folder, case):
    alone = case._replace(count=1, parts=1)
    states = [probe.mean_over_processes(folder, each) for each in (alone, case)]
    assert largest_difference(states) <= LIMITS[case.dtype]
    counters = {int(state["stem.bn.num_batches_tracked"]) for state in states}
    assert counters == {probe.STEPS}


def test_one_synchronized_process_gives_the_weights_of_torchs_normalization(folder):
    network = probe.create(torch.float64)
    assert type(network.stem.bn) is nn.BatchNorm2d
    probe.train(network, probe.PendingStatistics([]), torch.float64, (0, 1, 1))
    synced = probe.mean_over_processes(folder, probe.Case("synced", 1))
    assert largest_difference([network.state_dict(), synced]) <= 1e-12


def test_other_groups_give_other_weights(folder):
    """The comparison can fail: groups of two images are not the whole batch."""
    states = [probe.mean_over_processes(folder, probe.Case(kind, 1)) for kind in ("grouped", "synced")]
    assert largest_difference(states) > 1e-3
