import pytest
import timm
import torch
from timm.models import FeatureDictNet

import backbones
from backbones.errors import UserError
from backbones.models import VARIANTS, CspBackbone

WRAPPERS = {"getter": "FeatureGetterNet", "list": "FeatureListNet", "fx": "FeatureGraphNet", "hook": "FeatureHookNet"}
every_variant = pytest.mark.parametrize("name", VARIANTS)


def test_every_backbone_is_listed_and_known_to_timm():
    assert backbones.list_models() == list(VARIANTS)
    assert all(timm.is_model(name) for name in VARIANTS)


def test_the_list_can_be_narrowed_by_a_pattern():
    assert {"csresnext50_ws", "csresnext50_ws_mi2"} <= set(backbones.list_models("*50_ws*"))
    assert all("50_ws" in name for name in backbones.list_models("*50_ws*"))
    assert backbones.list_models("nothing*") == []


@every_variant
def test_the_docstring_says_how_sure_we_are(name):
    assert f"trained: {VARIANTS[name].certainty}; docs/variants.md" in timm.model_entrypoint(name).__doc__


def test_timm_builds_a_model_with_the_fields_of_the_spec_and_its_own_keywords():
    model = timm.create_model(
        "csresnext50_ws_mi2", num_classes=10, act="leaky", in_chans=1, drop_rate=0.25, global_pool="max"
    )
    assert isinstance(model, CspBackbone)
    assert model.spec.act == "leaky"
    assert model.spec.fusion == VARIANTS["csresnext50_ws_mi2"].spec.fusion
    assert model.head.fc.out_features == 10
    assert model.stem.conv.conv.in_channels == 1
    assert model.head.drop.p == 0.25
    assert model.head.global_pool.pool_type == "max"


def test_the_pretrained_cfg_describes_darknets_input():
    cfg = timm.create_model("csdarknet53", num_classes=2).pretrained_cfg
    data = timm.data.resolve_data_config(cfg)
    assert data["input_size"] == (3, 256, 256)
    assert data["interpolation"] == "bilinear"
    assert (data["mean"], data["std"], data["crop_pct"]) == ((0.0,) * 3, (1.0,) * 3, 1.0)
    assert (cfg["first_conv"], cfg["classifier"]) == ("stem.conv.conv", "head.fc")
    assert cfg["architecture"] == "csdarknet53"


def test_there_are_no_pretrained_weights_to_fetch():
    assert not timm.models.is_model_pretrained("csresnext50")
    with pytest.raises(RuntimeError, match="No pretrained weights"):
        timm.create_model("csresnext50", pretrained=True)


def test_an_unknown_keyword_is_a_type_error_that_names_it():
    with pytest.raises(TypeError, match="'fussion'"):
        backbones.create_model("csresnext50", fussion=1, num_classes=2)


def test_an_unknown_activation_names_the_nearest():
    with pytest.raises(ValueError, match="Did you mean leaky"):
        backbones.create_model("csresnext50", act="leeky")


def test_a_model_of_timm_is_built_too():
    assert backbones.create_model("resnet18", num_classes=3).get_classifier().out_features == 3


@pytest.mark.parametrize("name", ["csresnext50_ws_mi", "csresnext50_ws_mi.some_tag"])
def test_an_unknown_name_is_the_users_error_with_near_names(name):
    with pytest.raises(UserError, match=r"unknown model 'csresnext50_ws_mi.*Did you mean .*csresnext50_ws_mi2"):
        backbones.create_model(name)


@pytest.mark.parametrize("name", ["hf-hub:someone/something", "local-dir:/nowhere"])
def test_names_from_elsewhere_are_handed_to_timm(name, monkeypatch):
    asked = []
    monkeypatch.setattr(timm, "create_model", lambda name, **options: asked.append((name, options)))
    backbones.create_model(name, num_classes=3)
    assert asked == [(name, {"num_classes": 3})]


@torch.no_grad()
@pytest.mark.parametrize("name", ["csresnext50_ws_mi2", "csresnext50sub_mo", "csdarknet53_omega_mi_db_ip"])
def test_every_wrapper_of_timm_returns_the_same_features(name):
    depths = [1] * len(VARIANTS[name].spec.stages)
    images, features = torch.randn(1, 3, 41, 64), {}
    for wrapper in WRAPPERS:
        torch.manual_seed(0)
        options = {"features_only": True, "feature_cls": wrapper, "depths": depths, "out_indices": (0, 2, -1)}
        model = timm.create_model(name, **options).eval()
        features[wrapper] = model(images)
        has_pyramid = VARIANTS[name].spec.pyramid != "none"
        assert type(model).__name__ == WRAPPERS["getter" if wrapper == "list" and has_pyramid else wrapper]
        assert [f.shape[1] for f in features[wrapper]] == model.feature_info.channels()
    for wrapper in WRAPPERS:
        torch.testing.assert_close(features[wrapper], features["getter"], rtol=0, atol=0)


def test_a_wrapper_may_be_a_class_or_part_of_feature_cfg():
    with torch.device("meta"):
        for options in ({"feature_cls": FeatureDictNet}, {"feature_cfg": {"feature_cls": "dict", "out_indices": (1,)}}):
            model = backbones.create_model("csresnext50", features_only=True, **options)
            assert isinstance(model, FeatureDictNet)


@pytest.mark.parametrize("wrapper", ["dict", FeatureDictNet])
def test_a_wrapper_that_runs_modules_in_a_row_is_refused_where_a_stage_has_two_inputs(wrapper):
    with torch.device("meta"), pytest.raises(TypeError, match=r"pyramid='avgpool'.*choose getter, list, hook or fx"):
        backbones.create_model("csdarknet53_omega_mi_ip", features_only=True, feature_cls=wrapper)


def test_an_unknown_wrapper_names_the_nearest():
    with pytest.raises(ValueError, match=r"feature_cls='gettr'.*Did you mean getter"):
        backbones.create_model("csresnext50", features_only=True, feature_cls="gettr")
