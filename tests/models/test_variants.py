from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch

import backbones
from backbones.darknet import bflops
from backbones.models import VARIANTS, Variant
from backbones.models.variants import canonical_name, override, register

DOCS = Path(__file__).parents[2] / "docs" / "variants.md"
THREAD = {
    "csresnext50": (None, 79.8, 95.2, "exact"),
    "csresnext50_ws": ("csresnext50", 78.7, 94.7, "high"),
    "csresnext50_ws_mi2": ("csresnext50_ws", 79.9, 95.3, "medium"),
    "csresnext50_morelayers": ("csresnext50", 79.4, 95.2, "low"),
    "csresnext50sub": ("csresnext50", 79.5, 95.3, "medium-low"),
    "csresnext50sub_mi2": ("csresnext50sub", 79.4, 95.3, "medium-low"),
    "csresnext50sub_mo": ("csresnext50sub", 79.2, 95.1, "medium-low"),
    "csdarknet53": (None, 78.7, 94.8, "exact"),
    "csdarknet53_ws": ("csdarknet53", 65.6, 87.3, "high"),
    "csdarknet53_omega_mi": ("csdarknet53", 78.6, 94.7, "medium"),
    "csdarknet53_omega_mi_db": ("csdarknet53_omega_mi", 78.4, 94.5, "medium-low"),
    "csdarknet53_omega_mi_ip": ("csdarknet53_omega_mi", 77.8, 94.3, "medium-low"),
    "csdarknet53_omega_mi_db_ip": ("csdarknet53_omega_mi_db", None, None, "low"),
}
"""Parent, top-1, top-5 and certainty of the networks of the thread."""
every_variant = pytest.mark.parametrize("name", VARIANTS)


@pytest.mark.parametrize(("name", "figures"), THREAD.items())
def test_the_published_figures_are_kept(name, figures):
    variant = VARIANTS[name]
    assert (variant.parent, variant.top1, variant.top5, variant.certainty) == figures


@every_variant
def test_the_docs_list_every_backbone_with_its_figures(name):
    variant = VARIANTS[name]
    rows = [[cell.strip() for cell in line.split("|")] for line in DOCS.read_text().splitlines()]
    (row,) = [row for row in rows if len(row) == 9 and row[1] == f"`{name}`"]
    with torch.device("meta"):
        model = timm.create_model(name)
    _, _, parent, _, parameters, operations, figures, certainty, _ = row
    assert parent == (f"`{variant.parent}`" if variant.parent else "-")
    assert parameters == f"{sum(p.numel() for p in model.parameters()):,}"
    assert operations == f"{bflops(model):.3f}"
    assert figures == (f"{variant.top1} / {variant.top5}" if variant.top1 else "-")
    assert certainty == variant.certainty


def test_every_parent_is_registered_before_its_children():
    seen = {None}
    for variant in VARIANTS.values():
        assert variant.parent in seen
        seen.add(variant.name)


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("csresnext50-omega", "csresnext50"),
        ("csresnext50-ws-mi2", "csresnext50_ws_mi2"),
        ("csresnext50_ws_mi2_omega", "csresnext50_ws_mi2"),
        ("csresnext50morelayers", "csresnext50_morelayers"),
        ("csresnext50sub-mi2", "csresnext50sub_mi2"),
        ("csresnext50sub-mo", "csresnext50sub_mo"),
        ("csdarknet53-omega", "csdarknet53"),
        ("csdarknet53-omega-mi", "csdarknet53_omega_mi"),
        ("csdarknet53-mi-db", "csdarknet53_omega_mi_db"),
        ("csdarknet53_mi_ip", "csdarknet53_omega_mi_ip"),
    ],
)
def test_names_of_the_thread_mean_our_models(alias, name):
    assert canonical_name(alias) == name
    assert backbones.create_model(alias, num_classes=2, features_only=False).spec == VARIANTS[name].spec


@pytest.mark.parametrize("name", [*VARIANTS, "cspresnext50", "cspdarknet53", "resnext50_32x4d", "darknet53", "nothing"])
def test_every_other_name_stays_itself(name):
    assert canonical_name(name) == name


def test_no_name_of_timm_is_taken():
    assert not {name for name in VARIANTS if timm.model_entrypoint(name).__module__.startswith("timm")}
    for name in ("resnext50_32x4d", "darknet53", "cspresnet50", "cspresnext50", "cspdarknet53"):
        assert timm.model_entrypoint(name).__module__.startswith("timm.")


def test_a_name_cannot_be_registered_twice(tiny_spec):
    with pytest.raises(ValueError, match="csresnext50 is registered already"):
        register("csresnext50", tiny_spec, top1=1, top5=2, certainty="low")


def test_override_separates_the_fields_of_the_spec_from_the_rest(tiny_spec):
    spec, rest = override(tiny_spec, {"act": "swish", "num_classes": 3})
    assert spec.act == "swish"
    assert spec.stages == tiny_spec.stages
    assert rest == {"num_classes": 3}


def test_override_reaches_the_fields_of_a_part_by_its_name(tiny_spec):
    options = {"fusion_inputs": "dense", "fusion_gradient": "darknet", "drop_block_stages": [-1], "stem_kernel": 5}
    spec, rest = override(tiny_spec, options)
    assert spec.fusion == replace(tiny_spec.fusion, inputs="dense", gradient="darknet")
    assert spec.drop_block.stages == (-1,)
    assert spec.stem == replace(tiny_spec.stem, kernel=5)
    assert rest == {}


def test_override_sets_weights_and_normalization_together(tiny_spec):
    spec, _ = override(tiny_spec, {"fusion_weights": "none", "fusion_normalization": "none"})
    assert (spec.fusion.weights, spec.fusion.normalization) == ("none", "none")


def test_override_sets_the_depths(tiny_spec):
    spec, rest = override(tiny_spec, {"depths": [1, 4]})
    assert [stage.depth for stage in spec.stages] == [1, 4]
    assert rest == {}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"certainty": "exakt"}, "Did you mean exact"),
        ({"top1": 95.0, "top5": 90.0}, "top1=95.0, top5=90.0"),
        ({"top1": None, "top5": 90.0}, "top1=None, top5=90.0"),
    ],
)
def test_figures_that_cannot_be_are_refused(tiny_spec, changes, message):
    figures = {"parent": None, "top1": 70.0, "top5": 90.0, "certainty": "low"}
    with pytest.raises(ValueError, match=message):
        Variant("tiny", tiny_spec, **{**figures, **changes})
