"""Every backbone compiles to one graph for training and one for evaluation, with the gradients of eager mode."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters

import backbones
from backbones.models import VARIANTS
from backbones.models.cspnet import CspBackbone

DIFFERENT = ("csresnext50_ws_mi2", "csresnext50sub_mo")
"""Backbones with weighted shortcuts of several inputs, and with maxout."""


@pytest.fixture(autouse=True)
def _fresh_dynamo():
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def create(name: str) -> nn.Module:
    torch.manual_seed(0)
    return backbones.create_model(name, num_classes=3).double()


def create_shallow(name: str) -> nn.Module:
    """The stem and one stage of two blocks, with downsampling."""
    spec = VARIANTS[name].spec
    torch.manual_seed(0)
    return CspBackbone(replace(spec, stages=(replace(spec.stages[1], depth=2),)), num_classes=3).double()


def results(model: nn.Module, call: nn.Module) -> dict[str, Tensor]:
    """Logits of evaluation, and loss, gradients and statistics of a training step with the same random numbers."""
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1)).double()
    model.eval()
    with torch.no_grad():
        logits = call(images)
    model.train()
    torch.manual_seed(2)
    loss = call(images).square().sum()
    loss.backward()
    gradients = {f"gradient of {name}": p.grad for name, p in model.named_parameters() if p.grad is not None}
    return {"logits": logits, "loss": loss.detach(), **gradients, **dict(model.named_buffers())}


def require_two_equal_graphs(eager: nn.Module, compiled: nn.Module) -> None:
    expected = results(eager, eager)
    call = torch.compile(compiled, fullgraph=True, backend="aot_eager", dynamic=False)
    found = results(compiled, call)  # type: ignore[arg-type]  (torch types it as a function)
    assert counters["stats"]["unique_graphs"] == 2
    assert sum(key.startswith("gradient") for key in expected) == len(list(eager.parameters()))
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", DIFFERENT)
def test_one_stage_of_a_backbone_compiles_to_two_graphs_with_the_same_gradients(name):
    require_two_equal_graphs(create_shallow(name), create_shallow(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", backbones.list_models())
def test_each_backbone_compiles_to_two_graphs_with_the_same_gradients(name):
    require_two_equal_graphs(create(name), create(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["csresnext50_ws_mi2", "csresnext50sub_mo"])
def test_the_code_of_inductor_has_the_same_gradients(name):
    eager, compiled = create_shallow(name), create_shallow(name)
    found = results(compiled, torch.compile(compiled, fullgraph=True, dynamic=False))  # type: ignore[arg-type]
    torch.testing.assert_close(found, results(eager, eager), rtol=1e-6, atol=1e-8)
