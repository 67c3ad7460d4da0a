"""The module that launches the kernels, where it and Triton exist."""

import pytest


@pytest.fixture(scope="package")
def launch():
    pytest.importorskip("triton")
    return pytest.importorskip("backbones.layers.kernels.launch")
