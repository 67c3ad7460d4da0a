"""Tests of the copy to the device."""

import pytest
import torch

from backbones.data.batch import to_device


def test_a_tensor_that_is_already_there_is_not_copied() -> None:
    tensor = torch.arange(6)
    assert to_device(tensor, torch.device("cpu")) is tensor


@pytest.mark.gpu
def test_a_copy_to_a_gpu_has_the_same_values() -> None:
    tensor = torch.arange(6)
    copy = to_device(tensor, torch.device("cuda", 0))
    assert copy.is_cuda
    assert copy.tolist() == tensor.tolist()
