"""Many values come from the device in one wait, each in its place."""

import torch

from backbones.training.reading import join_micro_batches, read_device, with_mean


def test_each_tensor_gets_its_own_values_back_in_one_wait(monkeypatch):
    waits = []
    monkeypatch.setattr(torch.Tensor, "tolist", lambda tensor: waits.append(1) or tensor.numpy().tolist())
    parts = [torch.tensor([[1.0, 2.0], [3.0, 4.0]]), None, torch.tensor([True, False]), torch.tensor(7)]
    assert read_device(parts) == [[1, 2, 3, 4], [], [1, 0], [7]]
    assert len(waits) == 1


def test_the_mean_is_the_one_that_torch_computes_to_the_last_bit():
    numbers = list(torch.rand(50, generator=torch.Generator().manual_seed(0)))
    mean, *rest = with_mean(numbers).tolist()  # type: ignore[union-attr]
    assert mean == torch.stack(numbers).mean().item()
    assert rest == [number.item() for number in numbers]
    assert with_mean([]) is None


def test_micro_batches_become_steps_from_the_end_on():
    assert join_micro_batches([1.0, 3.0, 5.0, 9.0], 2) == [2.0, 7.0]
    assert join_micro_batches([100.0, 1.0, 3.0, 5.0, 9.0], 2) == [2.0, 7.0]
    assert join_micro_batches([1.0, 2.0], 1) == [1.0, 2.0]
