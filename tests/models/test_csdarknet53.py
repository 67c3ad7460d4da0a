import pytest

from backbones.models import VARIANTS
from backbones.models.csdarknet53 import CSDARKNET53
from tests.models.published import changed_fields, published_stages


def test_the_stages_are_those_of_the_published_cfg():
    assert [(stage.down, stage.depth) for stage in CSDARKNET53.stages] == published_stages("csdarknet53-omega")


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("csdarknet53_ws", {"fusion"}),
        ("csdarknet53_omega_mi", {"fusion"}),
        ("csdarknet53_omega_mi_db", {"drop_block"}),
        ("csdarknet53_omega_mi_ip", {"pyramid"}),
        ("csdarknet53_omega_mi_db_ip", {"pyramid"}),
    ],
)
def test_a_variant_differs_from_its_parent_in_one_field(name, fields):
    variant = VARIANTS[name]
    assert changed_fields(variant.spec, VARIANTS[variant.parent].spec) == fields
