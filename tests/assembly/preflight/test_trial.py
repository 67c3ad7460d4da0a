"""The trial sees a network that does not learn and a resumed run that is not the same."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

from backbones.assembly.preflight import trial
from backbones.assembly.preflight.row import attempt
from backbones.assembly.preflight.trial import (
    Trial,
    check_decoding,
    check_evaluation,
    check_learning,
    check_resume,
    hash_of,
)
from backbones.assembly.run import build_model, splits
from backbones.data import decode_check
from backbones.recipe import Optim, Recipe
from backbones.training import snapshot
from backbones.training.launch import create_accelerator

pytestmark = pytest.mark.usefixtures("fresh_accelerate")


@pytest.fixture
def small_trial(image_folder, tmp_path) -> Trial:
    """A trial of one process that forgets its run in place of killing it."""
    recipe = Recipe(model="test_resnet", img_size=32, batch_size=16, workers=1, device="cpu", precision="fp32")
    recipe = replace(recipe, data_dir=str(image_folder), optim=Optim(burn_in=0), model_ema=True, epochs=2)
    return Trial(recipe, create_accelerator(device="cpu"), *splits(recipe), tmp_path)


def test_a_run_that_forgets_nothing_is_equal_to_the_bit(small_trial):
    (row,) = check_resume(small_trial)
    assert (row.passed, row.found) == (True, "thrown away after step 2, resumed: step 4 is equal to the bit")


def test_a_checkpoint_without_the_right_momenta_is_seen(small_trial, monkeypatch):
    save = snapshot.save_optimizer

    def save_without_momenta(optimizer):
        state = save(optimizer)
        momenta = state["state"].values()
        return state | {"state": dict(enumerate({"momentum_buffer": 0 * each["momentum_buffer"]} for each in momenta))}

    monkeypatch.setattr(snapshot, "save_optimizer", save_without_momenta)
    (row,) = check_resume(small_trial)
    assert not row.passed
    assert "step 4 is different by" in row.found


def test_a_decoder_that_returns_other_pixels_fails(small_trial, monkeypatch):
    pytest.importorskip("nvidia.dali")
    trial_with_dali = replace(small_trial, recipe=replace(small_trial.recipe, loader="dali"))
    (row,) = attempt("decoding", partial(check_decoding, trial_with_dali))
    assert row.passed
    assert row.found == "64 images of this process have the pixels that PIL decodes, up to rounding"
    monkeypatch.setattr(decode_check, "relative_difference", lambda *_: 1.5)
    (row,) = attempt("decoding", partial(check_decoding, trial_with_dali))
    assert not row.passed
    assert "of 16 images that were decoded again on the CPU differ by more than rounding: " in row.found


def test_a_network_that_learns_passes_and_one_that_is_frozen_fails(small_trial, monkeypatch):
    learning, memory = check_learning(small_trial)
    assert (learning.passed, memory.passed) == (True, True)
    assert small_trial.speeds["model"] > 0

    def build_frozen(*args) -> nn.Module:
        model = build_model(*args)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_("fc" in name)  # a network needs one
            parameter.data.zero_()
        return model

    monkeypatch.setattr(trial, "build_model", build_frozen)
    frozen = replace(small_trial, recipe=replace(small_trial.recipe, lr=1e-30))
    assert not next(check_learning(frozen)).passed


def test_a_large_validation_is_evaluated_in_part(small_trial, monkeypatch):
    (row,) = check_evaluation(small_trial)
    assert (row.passed, row.found) == (True, "20 images counted of 20 (all)")
    monkeypatch.setattr(trial, "MAX_IMAGES", 8)
    (row,) = check_evaluation(small_trial)
    assert (row.passed, row.found) == (True, "7 images counted of 7 (every 3th)")


def test_a_hash_covers_names_and_values():
    values = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor(3)}
    assert hash_of(values) == hash_of(dict(reversed(values.items())))
    assert len({hash_of(values), hash_of({"a": values["a"]}), hash_of({**values, "b": torch.tensor(4)})}) == 3
    assert hash_of({"a": values["a"]}) != hash_of({"c": values["a"]})
