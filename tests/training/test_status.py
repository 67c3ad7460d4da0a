"""status.json tells the state of a run."""

import json
import signal
import time

import pytest

from backbones.errors import UserError
from backbones.training.control import StoppedError
from backbones.training.status import report_status


def status(folder) -> dict:
    return json.loads((folder / "status.json").read_text())


def test_a_run_is_running_and_then_finished(tmp_path):
    steps = iter([3, 8])
    with report_status(tmp_path, lambda: next(steps)):
        assert (status(tmp_path)["state"], status(tmp_path)["step"]) == ("running", 3)
    assert (status(tmp_path)["state"], status(tmp_path)["step"]) == ("finished", 8)
    assert abs(status(tmp_path)["time"] - time.time()) < 60


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (StoppedError(signal.SIGTERM, 5), "preempted"),
        (KeyboardInterrupt(), "preempted"),
        (UserError("the loss is not finite"), "failed"),
        (MemoryError(), "failed"),
    ],
)
def test_the_end_of_a_run_is_told(tmp_path, error, state):
    with pytest.raises(type(error)), report_status(tmp_path, lambda: 5):
        raise error
    assert (status(tmp_path)["state"], status(tmp_path)["step"]) == (state, 5)
