"""Tensors go to their names, the classifier's rows to their classes; whatever does not fit is listed."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import timm
import torch
from torch import nn

import backbones
from backbones.assembly.start.fit import (
    Misfit,
    Source,
    describe_misfits,
    fit_weights,
    list_classifier,
    tabulate_misfits,
)
from backbones.darknet.network import load_cfg
from backbones.errors import UserError
from tests.darknet.tiny_cfg import write_tiny_cfg

CLASSES = ("ant", "bee", "cow")


def make(classes: int = 3, seed: int = 0, **options) -> nn.Module:
    torch.manual_seed(seed)
    return backbones.create_model("test_resnet", num_classes=classes, **options)


@pytest.fixture
def network() -> nn.Module:
    return make()


def source_of(network: nn.Module, **about) -> Source:
    return Source("a.pth", dict(network.state_dict()), "0" * 64, **about)


def test_weights_of_the_same_network_and_classes_are_all_taken(network):
    other = make(seed=1)
    fit = fit_weights(network, source_of(other, classes=CLASSES), CLASSES)
    assert all(torch.equal(value, fit.taken[name]) for name, value in other.state_dict().items())
    assert (fit.misfits, fit.classifier) == ([], "")


def test_rows_follow_the_names_of_their_classes(network):
    """Row k of the file is class ("cow", "ant", "bee")[k]."""
    other = make(seed=1)
    other.fc.bias.data = torch.tensor([30.0, 10.0, 20.0])
    fit = fit_weights(network, source_of(other, classes=("cow", "ant", "bee")), CLASSES)
    assert fit.taken["fc.bias"].tolist() == [10, 20, 30]
    assert torch.equal(fit.taken["fc.weight"], other.fc.weight[[1, 2, 0]])
    assert fit.classifier == "brought into the data set's order of classes"


@pytest.mark.parametrize(
    ("other", "classes", "remark"),
    [
        (make(seed=1), ("ant", "bee", "dog"), "made anew: 1 of its classes are others, as dog"),
        (make(7, seed=1), tuple("abcdefg"), "made anew: it has 7 classes, the data set has 3"),
        (make(7, seed=1), None, "made anew: it has 7 classes, the data set has 3"),
        (make(0, seed=1), None, "made anew: the weights have none"),
    ],
)
def test_a_classifier_of_other_classes_is_made_anew(network, other, classes, remark):
    fit = fit_weights(network, source_of(other, classes=classes), CLASSES)
    assert fit.taken.keys() == network.state_dict().keys() - {"fc.weight", "fc.bias"}
    assert (fit.misfits, fit.classifier) == ([], remark)


def test_a_classifier_without_names_is_taken_and_it_is_said(network):
    fit = fit_weights(network, source_of(make(seed=1)), CLASSES)
    assert "fc.weight" in fit.taken
    assert "since the weights name no classes: row 0 is ant, row 2 is cow" in fit.classifier


@pytest.mark.parametrize(
    ("pattern", "is_taken"), [("{}", False), ("class_{}", False), ("{:02d}", True), ("n{:08d}", True)]
)
def test_without_names_numbers_in_the_order_of_text_are_no_order(pattern, is_taken):
    """Folders 0 ... 11 are sorted 0, 1, 10, 11, 2; who trained the weights may have counted."""
    classes = sorted(pattern.format(number) for number in range(12))
    fit = fit_weights(make(12), source_of(make(12, seed=1)), classes)
    assert ("fc.weight" in fit.taken) == is_taken
    assert fit.classifier.startswith("taken" if is_taken else "made anew: the weights name no classes, and the data")
    assert fit.misfits == []


def test_names_that_are_not_as_many_as_rows_count_as_none(network):
    fit = fit_weights(network, source_of(make(seed=1), classes=("ant", "bee")), CLASSES)
    assert "the weights name no classes" in fit.classifier


def test_whatever_does_not_fit_is_listed(network):
    weights = dict(make(seed=1).state_dict())
    weights["extra.weight"] = torch.zeros(2)
    weights["bn1.weight"] = torch.zeros(5)
    del weights["layer1.0.conv1.weight"], weights["bn1.num_batches_tracked"]
    fit = fit_weights(network, replace(source_of(network), weights=weights), CLASSES)
    assert set(fit.misfits) == {
        Misfit("layer1.0.conv1.weight", "[32, 32, 3, 3]", ""),
        Misfit("bn1.weight", "[32]", "[5]"),
        Misfit("extra.weight", "", "[2]"),
    }
    text = describe_misfits(fit.misfits)
    assert "1 missing: layer1.0.conv1.weight" in text
    assert "1 left over: extra.weight" in text
    assert "1 another shape: bn1.weight ([5], not [32])" in text
    assert len(tabulate_misfits(fit.misfits).splitlines()) == 4


def test_a_classifier_behind_other_features_does_not_fit(network):
    weights = dict(network.state_dict()) | {"fc.weight": torch.zeros(3, 5)}
    fit = fit_weights(network, replace(source_of(network), weights=weights), CLASSES)
    assert fit.misfits == [Misfit("fc.weight", f"[3, {network.num_features}]", "[3, 5]")]


def test_a_stem_of_another_number_of_channels_does_not_fit(network):
    fit = fit_weights(network, source_of(make(in_chans=1)), CLASSES)
    assert [misfit.problem for misfit in fit.misfits] == ["another shape"]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused_by_name(network, value):
    other = make(seed=1)
    other.layer1[0].bn1.running_var[3] = value
    with pytest.raises(UserError, match=r"^a.pth: layer1.0.bn1.running_var holds values that are not finite"):
        fit_weights(network, source_of(other), CLASSES)


def test_values_that_float32_cannot_hold_are_not_finite(network):
    weights = dict(network.state_dict())
    weights["bn1.bias"] = torch.full((32,), 1e300, dtype=torch.float64)
    with pytest.raises(UserError, match="bias holds values"):
        fit_weights(network, replace(source_of(network), weights=weights), CLASSES)


def test_half_precision_is_widened(network):
    weights = {
        name: value.half() if value.is_floating_point() else value for name, value in make().state_dict().items()
    }
    fit = fit_weights(network, replace(source_of(network), weights=weights), CLASSES)
    assert fit.taken["fc.weight"].dtype == torch.float32


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("csresnext50_ws_mi2", ["head.fc.weight", "head.fc.bias"]),
        ("test_resnet", ["fc.weight", "fc.bias"]),
        ("test_vit", ["head.weight", "head.bias"]),
        ("test_convnext", ["head.fc.weight", "head.fc.bias"]),
        ("deit_tiny_distilled_patch16_224", ["head.weight", "head.bias", "head_dist.weight", "head_dist.bias"]),
        ("volo_d1_224", ["aux_head.weight", "aux_head.bias", "head.weight", "head.bias"]),
    ],
)
def test_the_classifier_of_a_network_is_known(name, head):
    with torch.device("meta"):
        network = timm.create_model(name, num_classes=17)
    assert list_classifier(network) == head


def test_the_classifier_of_a_cfg_is_its_last_layer(tmp_path):
    network = load_cfg(write_tiny_cfg(tmp_path / "a.cfg", classes=5))
    assert list_classifier(network) == ["layers.4.conv.weight", "layers.4.conv.bias"]


def test_a_name_that_begins_like_the_classifiers_is_not_its():
    network = nn.Module()
    network.layers = nn.ModuleDict({"4": nn.Linear(2, 3), "40": nn.Linear(2, 3)})
    network.num_classes, network.get_classifier = 3, lambda: network.layers["4"]
    assert list_classifier(network) == ["layers.4.weight", "layers.4.bias"]


def test_a_network_without_a_classifier_has_none():
    assert list_classifier(SimpleNamespace(named_modules=list, state_dict=dict, num_classes=3)) == []
