"""Bytes that eager training keeps for backward, and the memory order of maps: counted without data, at full size."""

import json
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import timm
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

import backbones
from backbones.layers.norm_act import set_recompute
from backbones.models import CspBackbone

IMAGES, SIZE = 11, 256
"""More images than a shortcut has inputs: what has a row for each image is a map."""
LAST = torch.channels_last
FLOOR = Path(__file__).parents[1] / "fixtures" / "compiled_floor.json"
"""Bytes that the compilers keep, made by `benchmarks/offline/floor.py`."""


class Convolutions(TorchDispatchMode):
    """Inputs and gradients of outputs that convolutions get in another memory order than NHWC."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.other_order: list[tuple[str, torch.Size]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        maps = {"convolution": 1, "convolution_backward": 2}.get(func._opname, 0)
        self.calls += bool(maps)
        wrong = [x for x in args[:maps] if not x.is_contiguous(memory_format=LAST)]
        self.other_order += [(func._opname, x.shape) for x in wrong]
        return func(*args, **(kwargs or {}))


def count_kept(model: nn.Module, images: Tensor) -> tuple[Tensor, int]:
    """Return the logits and the bytes for each image of all maps that backward gets, parameters and images excepted.

    The network runs under autocast to bfloat16. A map that several operations keep counts once.
    """
    known = {x.untyped_storage()._cdata for x in (*model.parameters(), *model.buffers(), images)}
    kept: dict[int, tuple[int, Tensor]] = {}

    def pack(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        if storage._cdata not in known and x.shape[:1] == images.shape[:1]:
            kept[storage._cdata] = (storage.nbytes(), x)  # the tensor stays, so that no other takes its place
        return x

    hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x)
    with torch.autocast("cpu", torch.bfloat16), hooks:
        logits = model(images)
    return logits, sum(size for size, _ in kept.values()) // len(images)


class Step(NamedTuple):
    """Figures of one step of a network at full size."""

    kept: int
    convolutions: Convolutions


def give_shapes(model: nn.Module) -> nn.Module:
    """Replace all parameters and buffers of a network on ``meta`` by ones without data on the CPU, NHWC."""
    for module in model.modules():
        for name, x in module._parameters.items():
            if x is not None:
                given = torch.empty(x.shape)
                module._parameters[name] = nn.Parameter(given.to(memory_format=LAST) if x.dim() == 4 else given)
        for name, x in module._buffers.items():
            module._buffers[name] = None if x is None else torch.empty(x.shape, dtype=x.dtype)
    return model


@cache
def run_step(name: str, *, backward: bool = False) -> Step:
    """Run a network without data; the shapes, types and memory orders are those of a CPU."""
    model = timm.create_model(name, device="meta").train()
    with FakeTensorMode(), Convolutions() as convolutions:
        give_shapes(model)
        logits, kept = count_kept(model, torch.empty(IMAGES, 3, SIZE, SIZE).to(memory_format=LAST))
        if backward:
            logits.sum().backward()
    return Step(kept, convolutions)


def test_counts_without_data_are_those_with_data(tiny_spec):
    counts = []
    for on in (True, False):
        model = CspBackbone(tiny_spec).to(memory_format=LAST)
        set_recompute(model, on=on)
        counts.append(count_kept(model, torch.randn(IMAGES, 3, 64, 48).to(memory_format=LAST))[1])
        model = CspBackbone(tiny_spec, device="meta")
        set_recompute(model, on=on)
        with FakeTensorMode():
            give_shapes(model)
            assert count_kept(model, torch.empty(IMAGES, 3, 64, 48).to(memory_format=LAST))[1] == counts[-1]
    assert counts[0] < 0.75 * counts[1], "recomputation keeps less"


def test_csresnext50_keeps_at_most_65_megabytes_an_image():
    assert run_step("csresnext50").kept <= 65_000_000


@pytest.mark.parametrize("name", ["csresnext50_ws", "csresnext50_ws_mi2"])
def test_weighted_shortcuts_keep_nothing_that_plain_ones_do_not(name):
    assert run_step(name).kept <= 1.03 * run_step("csresnext50").kept


@pytest.mark.parametrize("name", backbones.list_models())
def test_no_network_keeps_much_more_than_a_compiler_would(name):
    floor = json.loads(FLOOR.read_text())["networks"][name]
    assert run_step(name).kept <= 1.05 * min(floor.values())


@pytest.mark.parametrize("name", backbones.list_models())
def test_every_convolution_sees_nhwc_where_the_images_are_nhwc(name):
    convolutions = run_step(name).convolutions
    assert convolutions.calls >= 59
    assert not convolutions.other_order


@pytest.mark.parametrize("name", ["csresnext50_ws_mi2", "csresnext50sub_mo", "csdarknet53_omega_mi_db_ip"])
def test_every_convolution_gets_its_gradient_in_nhwc(name):
    convolutions = run_step(name, backward=True).convolutions
    assert convolutions.calls >= 2 * 59
    assert not convolutions.other_order
