"""The files of a run by their names; what is in them is tested with the checkpoints."""

import pytest

from backbones.errors import UserError
from backbones.training.run_files import find_checkpoint, recipe_of, weights_file


def test_a_run_folder_is_its_last_checkpoint_and_has_its_recipe(tmp_path):
    (tmp_path / "last").mkdir()
    (tmp_path / "last" / "model.safetensors").touch()
    assert find_checkpoint(tmp_path) == tmp_path / "last"
    assert recipe_of(str(tmp_path)) is None
    (tmp_path / "recipe.yaml").touch()
    assert recipe_of(str(tmp_path)) == tmp_path / "recipe.yaml"


def test_the_averaged_weights_are_taken_unless_they_are_declined(tmp_path):
    (tmp_path / "ema.safetensors").touch()
    assert weights_file(tmp_path).name == "ema.safetensors"
    assert weights_file(tmp_path, ema=False).name == "model.safetensors"


def test_a_folder_that_is_missing_is_refused_with_a_near_one(tmp_path):
    (tmp_path / "run-1").mkdir()
    with pytest.raises(UserError, match=r"Did you mean .*run-1"):
        find_checkpoint(tmp_path / "run-2")
