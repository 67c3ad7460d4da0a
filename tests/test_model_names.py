import re

import pytest
import timm
from timm.models._registry import _model_entrypoints

from backbones import model_names
from backbones.errors import UserError
from backbones.model_names import names_in, require_possible_name, timm_source
from backbones.models import VARIANTS


def test_the_source_of_timm_names_the_models_that_timm_lists():
    listed = {name for name in timm.list_models() if timm.model_entrypoint(name).__module__.startswith("timm.")}
    assert set(names_in(timm_source())) == listed


def test_every_name_that_timm_knows_is_possible():
    """Deprecated names, too: each is a word of the source."""
    known = {name for name, create in _model_entrypoints.items() if create.__module__.startswith("timm.")}
    assert len(known) > len(timm.list_models()) - len(VARIANTS)
    assert known <= set(re.findall(r"\w+", timm_source()))


@pytest.mark.parametrize(
    "name", ["csresnext50-ws", "resnet50", "resnet50.a1_in1k", "resnetv2_152x2_bitm_in21k", "hf-hub:timm/whatever"]
)
def test_a_name_of_ours_or_of_timm_or_from_elsewhere_passes(name):
    require_possible_name(name)


@pytest.mark.parametrize(
    ("name", "near"),
    [("resnet5O", "resnet50"), ("csresnext50_ws_mi3", "csresnext50_ws_mi2"), ("resnet5O.a1_in1k", "resnet50")],
)
def test_a_name_that_nobody_knows_is_refused_with_near_ones(name, near):
    with pytest.raises(UserError, match=rf"unknown model '{name}'\. Did you mean .*{near}"):
        require_possible_name(name)


def test_without_the_source_every_name_may_be_possible(monkeypatch):
    monkeypatch.setattr(model_names, "timm_source", lambda: "")
    require_possible_name("resnet5O")
