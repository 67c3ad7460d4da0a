"""Whole networks whose layers recompute: same numbers, same names, and the tools of torch and timm still work."""

import copy
import hashlib

import pytest
import torch
from timm.utils.model import freeze_batch_norm_2d
from torch import nn

import backbones
from backbones.layers.fuse import fuse
from backbones.layers.norm_act import set_recompute
from backbones.models import CspBackbone
from tests.layers.operator_calls import Calls

NAMES = {
    "csresnext50": (356, "77b65da3126ea2ef"),
    "csresnext50_ws_mi2": (369, "348deb8cc23f75e6"),
    "csresnext50sub_mo": (356, "902a1a8495f370dc"),
    "csdarknet53_omega_mi_db_ip": (457, "f921686cc227036b"),
}
"""Number of tensors in a checkpoint and start of the sha256 of their names and shapes, before layers recomputed."""


@pytest.mark.parametrize("name", NAMES)
def test_a_checkpoint_has_the_names_and_shapes_that_it_had(name):
    state = backbones.create_model(name, device="meta").state_dict()
    text = "\n".join(f"{key} {tuple(value.shape)}" for key, value in state.items())
    assert (len(state), hashlib.sha256(text.encode()).hexdigest()[:16]) == NAMES[name]


@pytest.fixture
def pair(tiny_spec) -> tuple[CspBackbone, CspBackbone]:
    """A network and the same one without recomputation."""
    torch.manual_seed(0)
    model = CspBackbone(tiny_spec, num_classes=3).double().train()
    plain = copy.deepcopy(model)
    set_recompute(plain, on=False)
    return model, plain


def train(model: nn.Module, *, steps: int = 4, rate: float = 0.05) -> list[float]:
    """Return the loss of each step of plain gradient descent on random images."""
    generator = torch.Generator().manual_seed(1)
    parameters, losses = [p for p in model.parameters() if p.requires_grad], []
    for _ in range(steps):
        images = torch.randn(8, 3, 32, 40, generator=generator).to(parameters[0].dtype)
        loss = nn.functional.cross_entropy(model(images), torch.arange(8) % 3)
        losses.append(loss.item())
        with torch.no_grad():
            for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
                parameter.sub_(gradient, alpha=rate)
    return losses


@pytest.mark.parametrize(("kind", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_losses_weights_and_statistics_are_those_without_recomputation(pair, kind, tolerance):
    losses = [train(model.to(kind)) for model in pair]
    assert losses[0] == pytest.approx(losses[1], rel=tolerance)
    if kind == torch.float64:
        torch.testing.assert_close(pair[0].state_dict(), pair[1].state_dict(), rtol=1e-8, atol=1e-10)


def test_evaluation_and_runs_without_gradients_are_bit_equal(pair):
    model, plain = pair
    images = torch.randn(4, 3, 33, 38, dtype=torch.float64)
    with torch.no_grad(), Calls() as calls:
        assert torch.equal(model(images), plain(images))
    assert torch.equal(model.eval()(images), plain.eval()(images))
    assert not calls.own
    assert all(map(torch.equal, model.buffers(), plain.buffers()))


def test_a_copy_of_a_trained_network_goes_on_alike(pair):
    model, _ = pair
    train(model, steps=1)
    twin = copy.deepcopy(model)
    assert train(model) == train(twin)
    assert all(map(torch.equal, model.state_dict().values(), twin.state_dict().values()))


def test_a_trained_network_can_be_fused(pair):
    model, _ = pair
    train(model)
    images = torch.randn(4, 3, 32, 40, dtype=torch.float64)
    torch.testing.assert_close(fuse(model)(images), model.eval()(images))


def test_timms_frozen_normalization_stays_frozen(pair):
    frozen = [freeze_batch_norm_2d(model) for model in pair]
    before = {name: value.clone() for name, value in frozen[0].named_buffers()}
    assert len(before) > 10
    losses = [train(model.train()) for model in frozen]
    assert losses[0] == pytest.approx(losses[1], rel=1e-10)
    assert all(torch.equal(value, before[name]) for name, value in frozen[0].named_buffers())


def test_a_network_in_evaluation_mode_under_training_keeps_its_statistics(pair):
    """Fine-tuning with frozen statistics: gradients without new statistics."""
    losses = [train(model.eval()) for model in pair]
    assert losses[0] == pytest.approx(losses[1], rel=1e-10)
    assert pair[0].stem.conv.bn.num_batches_tracked == 0


def test_autocast_gives_the_gradients_of_networks_without_recomputation_up_to_rounding(pair):
    results = []
    for model in (model.float() for model in pair):
        images = torch.randn(8, 3, 32, 40, generator=torch.Generator().manual_seed(1))
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(images)
        assert logits.dtype == torch.bfloat16
        loss = nn.functional.cross_entropy(logits.float(), torch.arange(8) % 3)
        results.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))]))
    assert results[0].dtype == torch.float32
    assert (results[0] - results[1]).norm() < 0.05 * results[1].norm()


def test_only_the_trainable_parameters_of_a_network_get_gradients(pair):
    """Normalizations whose factors are frozen, and a stem that is."""
    for model in pair:
        model.stem.requires_grad_(False)
        for norm in model.modules():
            if isinstance(norm, nn.BatchNorm2d):
                norm.requires_grad_(False)
    losses = [train(model) for model in pair]
    assert losses[0] == pytest.approx(losses[1], rel=1e-10)
