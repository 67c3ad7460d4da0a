"""The kernels run on GPUs that they were checked for; elsewhere one line says why not."""

import importlib.util

import pytest
import torch

from backbones.layers.kernels.availability import is_available


def pretend(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int]) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla V100")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: object())


@pytest.mark.parametrize("capability", [(8, 0), (8, 9), (9, 0), (10, 0)])
def test_an_a100_and_newer_gpus_run_them(monkeypatch, capability):
    pretend(monkeypatch, capability)
    assert is_available()


def test_an_older_gpu_does_not_and_is_named(monkeypatch):
    pretend(monkeypatch, (7, 0))
    with pytest.warns(UserWarning, match=r"Tesla V100 has compute capability 7\.0, below 8\.0: .* slower torch"):
        assert not is_available()


def test_a_machine_without_triton_does_not(monkeypatch):
    pretend(monkeypatch, (9, 0))
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.warns(UserWarning, match="Triton is not installed"):
        assert not is_available()
