import pytest
import timm
from torch import nn

from backbones.models import CspBackbone, set_batch_norm


def test_every_batch_normalization_of_ours_is_set(tiny_spec):
    model = CspBackbone(tiny_spec)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert set_batch_norm(model, momentum=0.25) == len(norms) > 0
    assert {norm.momentum for norm in norms} == {0.25}


def test_every_batch_normalization_of_a_timm_model_is_set():
    model = timm.create_model("efficientnet_lite0")
    assert set_batch_norm(model, momentum=0.02) == 49
    assert {m.momentum for m in model.modules() if isinstance(m, nn.BatchNorm2d)} == {0.02}


def test_a_model_without_batch_normalization_has_none_to_set():
    assert set_batch_norm(nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2)), momentum=0.1) == 0


@pytest.mark.parametrize("momentum", [-0.1, 1.5])
def test_a_momentum_that_is_no_share_is_refused(momentum):
    with pytest.raises(ValueError, match=rf"momentum={momentum} must lie in \[0, 1\]"):
        set_batch_norm(nn.BatchNorm2d(2), momentum=momentum)
