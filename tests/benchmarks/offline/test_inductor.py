"""What is counted of a step that Inductor generates for a GPU, against a count by hand."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.benchmarks.offline.small_network import CHANNELS, IMAGES, SIDE

pytest.importorskip("triton")
pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[3]
TRACED_TORCH = "2.14"

CELLS = IMAGES * SIDE * SIDE
IMAGE, MAP = CELLS * 4 * 2, CELLS * CHANNELS * 2
"""Bytes of the images and of a map of the network in half precision."""
FIRST, SECOND = CHANNELS * 4 * 2, CHANNELS * CHANNELS * 9 * 2
"""Bytes of the weights in half precision; in single precision, twice."""


@pytest.fixture(scope="module")
def found():
    if not torch.__version__.startswith(f"{TRACED_TORCH}."):
        pytest.skip(f"benchmarks/offline uses internals of torch {TRACED_TORCH}, and this is {torch.__version__}")
    command = [sys.executable, "-m", "tests.benchmarks.offline.small_network"]
    return json.loads(subprocess.run(command, check=True, capture_output=True, cwd=ROOT).stdout)


def test_backward_gets_the_inputs_of_both_convolutions_and_of_the_activation(found):
    assert found["kept"] * IMAGES == IMAGE + MAP + MAP


def test_forward_converts_three_tensors_activates_and_calls_two_convolutions(found):
    cost = found["costs"][0]
    assert (cost["triton_launches"], cost["library_calls"]) == (4, 2)


def test_forward_moves_the_bytes_of_a_count_by_hand(found):
    conversions = 3 * (IMAGE + FIRST + SECOND)
    convolutions = (IMAGE + FIRST + MAP) + (MAP + SECOND + MAP)
    activation = MAP + MAP
    assert found["costs"][0]["moved"] == conversions + convolutions + activation


def test_backward_derives_two_convolutions_and_the_activation_and_converts_two_gradients(found):
    cost = found["costs"][1]
    assert (cost["triton_launches"], cost["library_calls"]) == (3, 2)


def test_backward_moves_the_bytes_of_a_count_by_hand(found):
    second = (MAP + MAP + SECOND) + (MAP + SECOND)
    activation = MAP + MAP + MAP
    first = (MAP + IMAGE + FIRST) + FIRST  # the images need no gradient
    conversions = 3 * (FIRST + SECOND)
    assert found["costs"][1]["moved"] == second + activation + first + conversions
