"""What a training step moves and launches, counted exactly: weighted shortcuts cost a few per cent more than plain.

The limits are those of the project's goals for a GPU: 1.06 and 1.12 times the bytes, 1.15 times the launches.
"""

from functools import cache

import pytest

from backbones import create_model
from backbones.counting import ImageCounts, count_per_image
from backbones.layers.norm_act import set_recompute
from backbones.layers.recomputed.operators import LAUNCHES

slow = pytest.mark.slow


@cache
def count(name: str, *, recompute: bool = True) -> ImageCounts:
    def create():
        network = create_model(name)
        set_recompute(network, on=recompute)
        return network

    return count_per_image(create, 256, launches_of=LAUNCHES)


@pytest.mark.parametrize(
    ("name", "plain", "moved"),
    [
        ("csresnext50_ws", "csresnext50", 1.06),
        ("csresnext50_ws_mi2", "csresnext50", 1.12),
        pytest.param("csdarknet53_ws", "csdarknet53", 1.06, marks=slow),
        pytest.param("csdarknet53_omega_mi", "csdarknet53", 1.12, marks=slow),
    ],
)
def test_fusion_weights_move_few_bytes_and_launch_few_kernels(name, plain, moved):
    assert count(name).moved <= moved * count(plain).moved
    assert count(name).launches <= 1.15 * count(plain).launches


def test_recomputing_moves_fewer_bytes_than_keeping():
    """A quarter less: the maps between normalization, activation and sum are neither written nor read."""
    assert count("csresnext50").moved <= 0.77 * count("csresnext50", recompute=False).moved
