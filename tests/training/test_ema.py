"""The moving average is timm's, to the bit, without its walks over the network."""

import copy
from collections.abc import Callable

import pytest
import torch
from timm.utils.model_ema import ModelEmaV3
from torch import nn

import backbones
from backbones.training.ema import MovingAverage

OPTIONS = {"decay": 0.9, "use_warmup": True}


def deep() -> nn.Module:
    return backbones.create_model("test_resnet", num_classes=3)


class Shared(nn.Module):
    """A network that uses one layer under two names, and keeps a buffer out of its state_dict."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
        self.second = self.first
        self.register_buffer("progress", torch.zeros(()), persistent=False)


class Renamed(nn.Linear):
    """A layer whose state_dict has one entry more than it has tensors."""

    def __init__(self) -> None:
        super().__init__(4, 4)
        self.register_state_dict_post_hook(
            lambda _self, state, prefix, _metadata: state.update({f"{prefix}extra": state[f"{prefix}weight"]})
        )


def half() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 64), nn.BatchNorm1d(64)).to(torch.bfloat16)


@torch.no_grad()
def move(model: nn.Module) -> None:
    """Change every tensor, as a step does."""
    for tensor in model.state_dict().values():
        tensor.add_(torch.randn(tensor.shape) if tensor.is_floating_point() else torch.ones_like(tensor))


def assert_same(ours: nn.Module, theirs: nn.Module) -> None:
    expected = theirs.state_dict()
    assert list(ours.state_dict()) == list(expected)
    for name, tensor in ours.state_dict().items():
        assert torch.equal(tensor, expected[name]), name


@pytest.mark.parametrize("make", [deep, Shared, Renamed, half])
def test_every_tensor_is_timms_to_the_bit_after_several_steps(make: Callable[[], nn.Module]):
    torch.manual_seed(0)
    model = make()
    ours, theirs = MovingAverage(model, **OPTIONS), ModelEmaV3(model, **OPTIONS)
    for step in (1, 2, 3, 40):
        move(model)
        ours.update(model, step=step)
        theirs.update(model, step=step)
        assert_same(ours, theirs)


def test_loaded_weights_and_a_tensor_in_anothers_place_are_followed():
    model = deep()
    ours, theirs = MovingAverage(model, **OPTIONS), ModelEmaV3(model, **OPTIONS)
    ours.update(model, step=1)
    theirs.update(model, step=1)
    model.load_state_dict(copy.deepcopy(deep().state_dict()), assign=True)
    ours.update(model, step=5)
    theirs.update(model, step=5)
    assert_same(ours, theirs)


def test_another_network_is_followed_from_then_on():
    model, other = deep(), deep()
    ours, theirs = MovingAverage(model, **OPTIONS), ModelEmaV3(model, **OPTIONS)
    for each in (model, other, model):
        ours.update(each, step=5)
        theirs.update(each, step=5)
    assert_same(ours, theirs)


def test_no_state_dict_is_collected_after_the_first_step(monkeypatch):
    model = deep()
    average = MovingAverage(model, **OPTIONS)
    average.update(model, step=1)
    before = {name: tensor.clone() for name, tensor in average.module.state_dict().items()}
    move(model)
    with monkeypatch.context() as patched:
        patched.setattr(nn.Module, "state_dict", None)
        average.update(model, step=2)
    after = average.module.state_dict()
    assert not any(torch.equal(tensor, after[name]) for name, tensor in before.items())
