from collections.abc import Callable
from typing import Any

import pytest

from backbones.darknet.cfg import parse_cfg
from backbones.darknet.network import DarknetNetwork
from tests.darknet.recordings import Recording, assert_close_to_scale


@pytest.fixture
def recording() -> Callable[[str], Recording]:
    return Recording


@pytest.fixture
def close_to_scale() -> Callable[..., None]:
    return assert_close_to_scale


@pytest.fixture
def network() -> Callable[..., DarknetNetwork]:
    """Build a network from the text of its layers, for images of 8 x 8 x 3."""

    def build(layers: str, *, size: int = 8, **options: Any) -> DarknetNetwork:
        return DarknetNetwork(parse_cfg(f"[net]\nheight={size}\nwidth={size}\nchannels=3\n{layers}"), **options)

    return build
