"""Every input of every shortcut is described: its weight, its share on the batch, and whether it is dead."""

import pytest
import torch

import backbones
from backbones.commands.inspect.fusion import fusion_report
from backbones.layers import WeightedShortcut
from tests.commands.inspect.make_networks import IMAGES, shortcut, with_weights


def test_every_input_of_every_shortcut_is_described():
    model = backbones.create_model("csresnext50_ws_mi2", num_classes=4)
    report = fusion_report(model, IMAGES)
    inputs = [(branch.layer, branch.input, branch.source) for branch in report if branch.layer in (8, 16)]
    assert inputs == [(8, 0, 7), (8, 1, 4), (16, 0, 15), (16, 1, 12), (16, 2, 8), (16, 3, 4)]
    assert len(report) == 35
    assert not any(branch.dead for branch in report)
    assert all(branch.raw == 1 for branch in report)
    assert model.training


def test_shares_are_measured_on_the_batch():
    """Against the definition, from the recorded inputs of one shortcut."""
    model = with_weights(27, 0.5, 1.5).eval()
    seen = []
    handle = shortcut(model, 27).register_forward_hook(lambda _m, inputs, _o: seen.append(inputs))
    report = [branch for branch in fusion_report(model, IMAGES) if branch.layer == 27]
    handle.remove()
    parts = [x.abs().mean().item() * weight for x, weight in zip(seen[0], (0.5, 1.5), strict=True)]
    assert [branch.share for branch in report] == pytest.approx([part / sum(parts) for part in parts], rel=1e-4)
    assert [branch.effective for branch in report] == pytest.approx([0.25, 0.75], abs=1e-4)


def test_a_narrow_input_counts_for_its_own_channels_only():
    model = backbones.create_model("csresnext50", num_classes=4)
    report = [branch for branch in fusion_report(model, IMAGES) if branch.layer == 8]
    assert sum(branch.share for branch in report) == pytest.approx(1)
    assert [(branch.raw, branch.effective) for branch in report] == [(None, 1.0)] * 2


@pytest.mark.parametrize(
    ("name", "values", "dead"),
    [
        ("csresnext50_ws", (1.0, 0.001), [False, True]),
        ("csresnext50_ws", (1.0, 0.02), [False, False]),
        ("csresnext50_ws", (1.0, 0.005), [False, True]),
        ("csresnext50_ws_mi2", (1.0, -5.0), [False, True]),
        ("csresnext50_ws_mi2", (1.0, -3.0), [False, False]),
    ],
)
def test_a_branch_is_dead_at_a_raw_thousandth_or_below_one_percent(name, values, dead):
    report = fusion_report(with_weights(27, *values, name=name), IMAGES)
    assert [branch.dead for branch in report if branch.layer == 27] == dead


def test_a_branch_that_lives_in_one_channel_is_alive():
    model = backbones.create_model("csresnext50_ws", num_classes=4, fusion_weights="per_channel")
    weight = shortcut(model, 27).weight
    with torch.no_grad():
        weight[1] = -1
        weight[1, 7] = 1
    assert not any(branch.dead for branch in fusion_report(model, IMAGES))


@torch.no_grad()
def test_shares_that_darknet_does_not_know_are_inspected_too():
    """The sigmoid normalization has no cfg, so its shortcuts are numbered among themselves."""
    model = backbones.create_model(
        "csresnext50", num_classes=4, fusion_weights="per_feature", fusion_normalization="sigmoid"
    )
    first = next(module for module in model.modules() if isinstance(module, WeightedShortcut))
    first.weight.copy_(torch.tensor([[0.0], [-9.0]]))
    report = fusion_report(model, IMAGES)
    assert len(report) == 26
    assert [(branch.layer, branch.input) for branch in report if branch.dead] == [(0, 1)]
    assert {branch.source for branch in report} == {None}
