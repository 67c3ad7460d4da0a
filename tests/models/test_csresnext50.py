import pytest

from backbones.models import VARIANTS
from backbones.models.csresnext50 import CSRESNEXT50
from tests.models.published import changed_fields, published_stages


def test_the_stem_and_the_stages_are_those_of_the_published_cfg():
    stem, stages = CSRESNEXT50.stem, CSRESNEXT50.stages
    downs = [stem.width, *(stage.down for stage in stages[1:])]
    assert list(zip(downs, (stage.depth for stage in stages), strict=True)) == published_stages("csresnext50-omega")
    assert stages[0].down is None


def test_more_layers_are_those_of_the_cfg_of_the_same_reading():
    depths = [stage.depth for stage in VARIANTS["csresnext50_morelayers"].spec.stages]
    assert depths == [count for _, count in published_stages("csresnext50morelayers")]


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("csresnext50_ws", {"fusion"}),
        ("csresnext50_ws_mi2", {"fusion"}),
        ("csresnext50_morelayers", {"stages"}),
        ("csresnext50sub", {"downsample"}),
        ("csresnext50sub_mi2", {"fusion"}),
        ("csresnext50sub_mo", {"fusion"}),
    ],
)
def test_a_variant_differs_from_its_parent_in_one_field(name, fields):
    variant = VARIANTS[name]
    assert changed_fields(variant.spec, VARIANTS[variant.parent].spec) == fields
