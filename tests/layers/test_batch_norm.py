import copy
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
import torch.nn.functional as F
from timm.layers.norm_act import BatchNormAct2d
from torch import nn

from backbones.layers import ConvNormAct
from backbones.layers.batch_norm import (
    GroupedBatchNorm2d,
    PendingStatistics,
    SyncedBatchNorm2d,
    group_batch_norm,
    sync_batch_norm,
)
from backbones.models.recompute import recompute
from tests.probes import synced_norm

ROOT = Path(__file__).parents[2]


def create_grouped(images: int, *, momentum: float = 0.25) -> GroupedBatchNorm2d:
    norm = nn.BatchNorm2d(3, momentum=momentum).double()
    nn.init.uniform_(norm.weight, 0.5, 1.5)
    (grouped,) = group_batch_norm(norm, images)
    return grouped


def create_map(count: int = 6) -> torch.Tensor:
    return (torch.randn(count, 3, 4, 5, dtype=torch.float64) * 3 + 1).requires_grad_()


def run(function, x):
    """Return the value and the gradient of the input for an uneven gradient."""
    y = function(x)
    gradient = torch.linspace(-1, 2, y.numel(), dtype=y.dtype).reshape(y.shape)
    return y.detach(), *torch.autograd.grad(y, x, gradient)


@pytest.mark.parametrize("images", [2, 3, 6])
def test_groups_are_normalized_apart_from_each_other(images):
    norm, x = create_grouped(images), create_map()

    def expect(x):
        parts = [F.batch_norm(part, None, None, norm.weight, norm.bias, True) for part in x.split(images)]
        return torch.cat(parts)

    torch.testing.assert_close(run(norm, x), run(expect, x))


def test_statistics_of_a_step_do_not_depend_on_its_division_into_micro_batches():
    x = create_map(12).detach()
    norms = [create_grouped(2) for _ in range(3)]
    for norm, micro_batch in zip(norms, (2, 6, 12), strict=True):
        for part in x.split(micro_batch):
            norm(part)
        PendingStatistics([norm]).apply()
    for other in norms[1:]:
        torch.testing.assert_close(dict(other.named_buffers()), dict(norms[0].named_buffers()), rtol=1e-12, atol=1e-12)


def test_statistics_move_once_a_step_by_the_mean_over_the_groups():
    norm, x = create_grouped(3), create_map().detach()
    pending = PendingStatistics([norm])
    theirs = [nn.BatchNorm2d(3, momentum=1.0).double() for _ in range(2)]
    for other, part in zip(theirs, x.split(3), strict=True):
        other(part)
    norm(x)
    assert norm.running_mean.tolist() == [0.0] * 3
    pending.apply()
    mean, var = (torch.stack([getattr(n, name) for n in theirs]).mean(0) for name in ("running_mean", "running_var"))
    torch.testing.assert_close(norm.running_mean, 0.25 * mean)
    torch.testing.assert_close(norm.running_var, 0.75 + 0.25 * var)
    assert norm.num_batches_tracked == 1
    second = create_map(3).detach()
    norm(second)
    pending.apply()
    torch.testing.assert_close(norm.running_mean, 0.75 * 0.25 * mean + 0.25 * second.mean((0, 2, 3)))


def test_forgotten_statistics_leave_no_trace():
    norms = [create_grouped(3), create_grouped(3)]
    norms[1].load_state_dict(norms[0].state_dict())
    first, second = create_map().detach(), create_map().detach()
    for norm, batches in zip(norms, ([first, second], [second]), strict=True):
        pending = PendingStatistics([norm])
        for x in batches[:-1]:
            norm(x)
        pending.forget()
        norm(batches[-1])
        pending.apply()
    assert all(map(torch.equal, norms[0].buffers(), norms[1].buffers()))


def test_a_step_without_any_group_moves_nothing():
    norm = create_grouped(3)
    norm(create_map())
    PendingStatistics([norm]).apply()
    before = {name: value.clone() for name, value in norm.named_buffers()}
    norm.eval()(create_map())
    PendingStatistics([norm]).apply()
    assert all(torch.equal(value, before[name]) for name, value in norm.named_buffers())


def test_layers_of_different_momentum_are_refused():
    norms = [create_grouped(3, momentum=momentum) for momentum in (0.1, 0.2)]
    for norm in norms:
        norm(create_map())
    with pytest.raises(ValueError, match="bn_batch needs one momentum for all layers"):
        PendingStatistics(norms).apply()


def test_without_grouped_layers_there_is_nothing_to_apply():
    PendingStatistics([]).apply()


def test_evaluation_uses_the_running_statistics_of_any_number_of_images():
    norm, x = create_grouped(4).eval(), create_map(3)
    norm.running_mean.fill_(2.0)
    expected = F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias)
    assert torch.equal(norm(x), expected)


def test_a_group_size_that_does_not_divide_is_refused():
    norm = create_grouped(4)
    with pytest.raises(ValueError, match="bn_batch=4 must divide the 6 images of a micro-batch"):
        norm(create_map())


@pytest.mark.parametrize("convert", [sync_batch_norm, lambda model: group_batch_norm(model, 1)])
def test_one_value_of_a_channel_is_refused_as_torch_does(convert):
    unit = ConvNormAct(3, 4, kernel=1)
    convert(unit)
    count = 1 if isinstance(unit.bn, SyncedBatchNorm2d) else 2
    with pytest.raises(ValueError, match="Expected more than 1 value per channel when training"):
        unit(torch.randn(count, 3, 1, 1))


@pytest.mark.parametrize("convert", [sync_batch_norm, lambda model: group_batch_norm(model, 2)])
@pytest.mark.parametrize("norm", [nn.BatchNorm2d(3, momentum=None), nn.BatchNorm2d(3, affine=False), nn.BatchNorm1d(3)])
def test_a_normalization_of_another_kind_is_refused_by_its_name(norm, convert):
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Sequential(nn.Identity(), copy.deepcopy(norm)))
    with pytest.raises(ValueError, match=rf"(bn_batch|sync_bn) cannot change 1\.1, a {type(norm).__name__} \(3, eps="):
        convert(model)


def test_conversion_keeps_names_parameters_and_hooks():
    model = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))
    before, calls = model.state_dict(), []
    model[1].register_forward_hook(lambda *_: calls.append(1))
    parameters = list(model.parameters())
    norms = group_batch_norm(model, 2)
    assert model.state_dict().keys() == before.keys()
    assert all(a is b for a, b in zip(parameters, model.parameters(), strict=True))
    assert norms == [model[1]]
    model(torch.randn(2, 3, 4, 4))
    assert calls == [1]


def test_a_grouped_layer_inside_a_unit_is_computed_with_its_activation():
    unit, x = ConvNormAct(3, 4, kernel=1, act="mish").double(), create_map()
    group_batch_norm(unit, 3)

    def expect(x):
        parts = [F.batch_norm(p, None, None, unit.bn.weight, unit.bn.bias, True) for p in unit.conv(x).split(3)]
        return F.mish(torch.cat(parts))

    torch.testing.assert_close(run(unit, x), run(expect, x))


@pytest.mark.parametrize("kind", ["plain", "grouped", "synced"])
def test_statistics_are_taken_once_under_gradient_checkpointing(kind):
    convert = {"plain": lambda _: None, "grouped": lambda unit: group_batch_norm(unit, 2), "synced": sync_batch_norm}
    results = []
    for call in (recompute, lambda module, x: module(x)):
        torch.manual_seed(0)
        unit, x = ConvNormAct(3, 4, kernel=1).double(), create_map()
        convert[kind](unit)
        call(unit, x).square().sum().backward()
        results.append((x.grad, [p.grad for p in unit.parameters()], dict(unit.named_buffers())))
    torch.testing.assert_close(*results, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["resnet18", "cspresnext50"])
@pytest.mark.parametrize("convert", [lambda model: group_batch_norm(model, 2), sync_batch_norm])
def test_a_network_of_timm_computes_the_same_with_groups_of_the_whole_batch(name, convert):
    """`BatchNormAct2d` holds an activation: once, and the drop layer before it."""
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=2).double().train()
    twin = copy.deepcopy(model)
    assert len(convert(twin)) == sum(isinstance(m, nn.BatchNorm2d) for m in model.modules())
    x = torch.randn(2, 3, 48, 48, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(run(twin, x), run(model, x))


@pytest.mark.parametrize("convert", [lambda model: group_batch_norm(model, 6), sync_batch_norm])
@pytest.mark.parametrize("training", [True, False])
def test_timms_normalization_drops_and_activates_once(convert, training):
    """An activation that is not idempotent shows a second one."""
    norm = BatchNormAct2d(3, act_layer=nn.Mish, drop_layer=lambda: nn.Hardtanh(-0.5, 0.5)).double().train(training)
    twin = copy.deepcopy(norm)
    convert(twin)
    x = create_map()
    torch.testing.assert_close(run(twin, x), run(norm, x))


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What two processes computed, each with half of the batch."""
    folder = tmp_path_factory.mktemp("synced")
    command = [sys.executable, "-m", "tests.probes.synced_norm"]
    started = [
        subprocess.Popen([*command, str(rank), "2", str(folder)], cwd=ROOT, stderr=subprocess.PIPE, text=True)
        for rank in (0, 1)
    ]
    errors = [process.communicate(timeout=200)[1] for process in started]
    assert [process.returncode for process in started] == [0, 0], errors
    return [torch.load(folder / f"rank{rank}.pt") for rank in (0, 1)]


@pytest.mark.parametrize("kind", ["once", "twice"])
def test_two_processes_normalize_together_as_one_with_the_whole_batch(ranks, kind):
    """Also where gradient checkpointing runs a layer twice."""
    parts, whole = [rank[kind] for rank in ranks], synced_norm.report(0, 4, synced=False)
    together = {name: torch.cat([part[name] for part in parts]) for name in ("y", "x")}
    summed = {name: sum(part["parameters"][name] for part in parts) for name in whole["parameters"]}
    exact = {"rtol": 1e-12, "atol": 1e-12}
    torch.testing.assert_close(together, {name: whole[name] for name in together}, **exact)
    torch.testing.assert_close(summed, whole["parameters"], **exact)
    for part in parts:
        torch.testing.assert_close(part["buffers"], whole["buffers"], **exact)


def test_a_single_process_needs_no_process_group():
    torch.testing.assert_close(synced_norm.report(0, 4), synced_norm.report(0, 4, synced=False))
