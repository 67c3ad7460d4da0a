"""Rows 28 to 30: recipes with unknown keys, wrong values and YAML's traps are refused before any work."""

import pytest

from backbones.errors import UserError
from tests import accelerate_state
from tests.faults.small_runs import train
from train_imagenet import main

pytestmark = pytest.mark.usefixtures("fresh_accelerate")

MISTAKES = [
    (28, "smoothingg: 0.1", "smoothingg"),
    (28, "lrr: 9", "Did you mean lr"),
    (28, "mixing:\n  smoothingg: 0.1", "smoothing"),
    (29, "augment:\n  augmentation: darknett", "darknet"),
    (29, "loader: dalli", "dali"),
    (29, "model: csresnext50_ws_mi3", "Did you mean .*csresnext50_ws_mi2"),
    (29, "model_args: {weights_type: per_feture}", "per_feture"),
    (30, "lr: 0.1\nlr: 0.2", "lr"),
    (30, "seed: 010", "010"),
    (30, "batch_size: 1e2", "batch_size"),
    (30, "model_ema: no", "model_ema"),
]


@pytest.mark.parametrize(
    ("text", "message"), [pytest.param(text, named, marks=pytest.mark.fault(row)) for row, text, named in MISTAKES]
)
def test_a_mistake_in_a_recipe_is_refused_with_its_name_before_the_data_is_read(sound, config, text, message):
    accelerate_state.reset()
    words = ["--config", config(text + "\n"), "--data-dir", str(sound), "--output", str(sound.parent / "never")]
    with pytest.raises((UserError, SystemExit, ValueError), match=message):
        main([*words, "--steps", "1", "--device", "cpu", "--img-size", "32"])
    assert not (sound.parent / "never").exists()


@pytest.mark.fault(30)
def test_a_number_in_scientific_form_is_a_number(sound, config, tmp_path):
    """YAML 1.1 reads 1e-4 as a text."""
    train(sound, "--config", config("lr: 1e-4\n"), output=tmp_path / "run")
    assert "lr: 0.0001" in (tmp_path / "run" / "recipe.yaml").read_text()
