from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch

from backbones.layers import ConvNormAct

FIXTURES = Path(__file__).parents[1] / "fixtures" / "darknet"


class Recorded(dict[str, torch.Tensor]):
    """The arrays of one darknet run as tensors."""

    def layer(self, index: int, kind: str = "param") -> Mapping[str, torch.Tensor]:
        prefix = f"{kind}/{index:03d}/"
        return {key.removeprefix(prefix): value for key, value in self.items() if key.startswith(prefix)}

    def fill(self, unit: ConvNormAct, index: int) -> None:
        values = self.layer(index)
        state = {
            "conv.weight": values["weights"],
            "bn.weight": values["scales"],
            "bn.bias": values["biases"],
            "bn.running_mean": values["rolling_mean"],
            "bn.running_var": values["rolling_variance"],
            "bn.num_batches_tracked": torch.tensor(0),
        }
        unit.load_state_dict(state)


def assert_close_to_scale(actual: torch.Tensor, expected: torch.Tensor, *, tolerance: float = 1e-5) -> None:
    error = (actual - expected).abs().max().item()
    assert error <= tolerance * expected.abs().max().item()


@pytest.fixture
def recorded() -> Callable[[str], Recorded]:
    def load(name: str) -> Recorded:
        with np.load(FIXTURES / f"{name}.npz") as arrays:
            return Recorded({key: torch.from_numpy(arrays[key]) for key in arrays if key != "meta"})

    return load


@pytest.fixture
def close_to_scale() -> Callable[..., None]:
    return assert_close_to_scale
