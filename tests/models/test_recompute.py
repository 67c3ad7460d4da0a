import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from backbones.models import CspBackbone
from backbones.models.recompute import recompute, spare_statistics


def train_step(model, x):
    """Run one forward and backward; return the loss, the gradients and all buffers."""
    loss = model(x).square().sum()
    loss.backward()
    gradients = {name: p.grad for name, p in model.named_parameters()}
    return loss.detach(), gradients, dict(model.named_buffers())


@pytest.mark.parametrize("act", ["mish", "leaky"])
def test_statistics_and_gradients_are_the_same_with_and_without_checkpointing(tiny_spec, act):
    plain = CspBackbone(replace(tiny_spec, act=act), num_classes=3).train()
    checkpointed = copy.deepcopy(plain)
    checkpointed.set_grad_checkpointing(True)
    x = torch.randn(4, 3, 32, 32)
    for step in range(1, 3):
        expected, actual = train_step(plain, x), train_step(checkpointed, x)
        torch.testing.assert_close(actual, expected, rtol=0, atol=0)
        assert plain.stem.conv.bn.num_batches_tracked == step


def test_checkpointing_runs_the_stages_twice_and_the_stem_once(tiny_spec):
    model = CspBackbone(tiny_spec, num_classes=3).train()
    model.set_grad_checkpointing(True)
    runs = {"stem": 0, "stages.0.cross": 0, "stages.1.cross": 0}

    def count(name):
        def hook(*_):
            runs[name] += 1

        return hook

    for name in runs:
        model.get_submodule(name).register_forward_hook(count(name))
    train_step(model, torch.randn(2, 3, 32, 32))
    assert runs == {"stem": 1, "stages.0.cross": 2, "stages.1.cross": 2}


def kept_bytes(model, x):
    storages = {}

    def pack(tensor):
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = model(x)
    assert output.requires_grad
    return sum(storages.values())


def test_checkpointing_keeps_fewer_bytes_for_backward(tiny_spec):
    model = CspBackbone(tiny_spec, num_classes=3).train()
    x = torch.randn(4, 3, 64, 64)
    plain = kept_bytes(model, x)
    model.set_grad_checkpointing(True)
    assert kept_bytes(model, x) < plain / 2


def test_checkpointing_can_be_switched_off_again(tiny_spec):
    model = CspBackbone(tiny_spec)
    model.set_grad_checkpointing(True)
    assert model.grad_checkpointing
    model.set_grad_checkpointing(False)
    assert not model.grad_checkpointing


def test_dropout_is_drawn_once_for_both_runs():
    module = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5))
    x = torch.ones(4, 8, requires_grad=True)
    y = recompute(module, x)
    y.sum().backward()
    mask = (y != 0).float() * 2
    torch.testing.assert_close(module[0].weight.grad, mask.T @ x.detach())


def test_statistics_are_put_back_even_after_an_error():
    norm = nn.BatchNorm2d(2)
    mean, before = norm.running_mean, norm.running_mean.clone()
    with pytest.raises(RuntimeError, match="expected"), spare_statistics(norm):
        nn.Sequential(norm, nn.Conv2d(3, 2, 1))(torch.randn(2, 2, 3, 3) + 5)
    assert norm.running_mean is mean
    assert torch.equal(mean, before)
    assert norm.num_batches_tracked == 0


def test_batch_normalization_without_statistics_is_left_alone():
    norm = nn.BatchNorm2d(2, track_running_stats=False)
    with spare_statistics(norm):
        norm(torch.randn(2, 2, 3, 3))
    assert norm.running_mean is None


@pytest.mark.slow
def test_checkpointing_and_compilation_together_update_the_statistics_once(tiny_spec):
    plain = CspBackbone(replace(tiny_spec, stages=tiny_spec.stages[:1]), num_classes=3).double().train()
    compiled = copy.deepcopy(plain)
    compiled.set_grad_checkpointing(True)
    x = torch.randn(4, 3, 16, 16, dtype=torch.float64)
    expected = train_step(plain, x)
    loss = torch.compile(compiled, fullgraph=True, backend="aot_eager")(x).square().sum()
    loss.backward()
    gradients = {name: p.grad for name, p in compiled.named_parameters()}
    torch.testing.assert_close((loss.detach(), gradients, dict(compiled.named_buffers())), expected)
