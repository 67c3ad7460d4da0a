"""BatchNorm statistics of the processes, brought together and given back."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from backbones.training.statistics import average_statistics, gather_statistics, load_statistics
from tests.training.make_runs import make_run, train

pytestmark = pytest.mark.usefixtures("fresh_accelerate")


def test_what_is_saved_has_the_mean_of_the_processes_statistics(tmp_path):
    """The mean of x and x + 2 is x + 1; weights and the counter of batches stay as they are."""
    run = make_run(ema=True)
    train(run)
    (own,) = gather_statistics(run)
    saved = average_statistics(run, [own, [value + 2 if value.is_floating_point() else value for value in own]])
    assert saved.keys() == {"val", "val_ema"}
    for name, network_ in run.networks.items():
        for key, value in network_.state_dict().items():
            assert torch.allclose(saved[name][key], value + 1 if "running" in key else value), key


@pytest.mark.parametrize(("processes", "found"), [(2, 7.0), (3, 5.0)])
def test_a_resumed_process_has_its_own_statistics_where_there_are_as_many(processes, found):
    """Otherwise it keeps those of the weights file."""
    run = make_run()
    (own,) = gather_statistics(run)
    gathered = [[torch.full_like(value, number) for value in own] for number in (6, 7)]
    for buffer in run.plain_model.buffers():
        buffer.fill_(5)
    accelerator = SimpleNamespace(num_processes=processes, process_index=1, unwrap_model=run.accelerator.unwrap_model)
    load_statistics(replace(run, accelerator=cast(Any, accelerator)), gathered)
    assert {buffer.unique().item() for buffer in run.plain_model.buffers()} == {found}
