"""A checkpoint becomes the run again, or is refused by name."""

import math

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from backbones.errors import UserError
from backbones.recipe import Log, Recipe
from backbones.training.checkpoint import load_state
from backbones.training.loop import fit
from backbones.training.resume import NEW_RUN, load_run_state, read_state
from tests import accelerate_state
from tests.training.make_runs import make_run, network, same, train, weights
from tests.training.make_snapshots import run_in, save, snapshots_in

pytestmark = pytest.mark.usefixtures("fresh_accelerate")


def test_a_state_of_version_0_1_is_read(tmp_path):
    """It kept the report's rows and one counter by themselves."""
    run, _ = run_in(tmp_path)
    train(run)
    save(run, owes_validation=True)
    state = load_state(tmp_path / "last")
    report = state.pop("report")
    state |= {"reported": report["rows"], "replaced": 5}
    state["optimizer"].pop("kind")
    for key in ("schema", "batch_norm"):
        state.pop(key)
    torch.save(state, tmp_path / "last" / "state.pt")
    (tmp_path / "last" / "manifest.json").unlink()
    resumed, owes_validation = run_in(tmp_path, resume=True)
    assert owes_validation
    assert resumed.report.rows == run.report.rows
    assert resumed.report.counters == {"data/replaced": 5}


def test_in_another_folder_a_run_has_yet_to_find_its_best(tmp_path):
    run, _ = run_in(tmp_path / "old")
    fit(run)
    recipe = Recipe(log=Log(interval=3), resume=str(tmp_path / "old"))
    state, _ = read_state(recipe, tmp_path / "new", run.accelerator, train="images", val="validation")
    assert (state["best_top1"], state["wandb_id"]) == (-math.inf, None)


def test_without_a_checkpoint_a_run_is_new(tmp_path):
    assert read_state(Recipe(), tmp_path, Accelerator(cpu=True), train="a", val="b") == (NEW_RUN, {})


def test_a_cfg_that_has_changed_is_another_network(tmp_path):
    run, _ = run_in(tmp_path)
    train(run)
    save(run)
    recipe = Recipe(log=Log(interval=3), resume=str(tmp_path))
    with pytest.raises(UserError, match="is not the network any more that the checkpoint was made with"):
        snapshots_in(tmp_path, recipe=recipe, cfg="[net]").restore(run, load_run_state(tmp_path / "last"))


def test_tensors_of_earlier_versions_are_renamed(tmp_path):
    run, _ = run_in(tmp_path)
    train(run)
    save(run)

    class Renamed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = network(dropout=0.5)

        def forward(self, x):
            return self.inner(x)

    def current_names(tensors):
        return {f"inner.{name}": value for name, value in tensors.items()}

    accelerate_state.reset()
    recipe = Recipe(log=Log(interval=3), resume=str(tmp_path))
    writer = snapshots_in(tmp_path, recipe=recipe, current_names=current_names)
    second = make_run(Renamed(), ema=True, recipe=recipe, checkpoints=writer)
    writer.restore(second, load_run_state(tmp_path / "last"))
    assert same(weights(run), weights(second))


def test_a_lost_manifest_is_damage(tmp_path):
    run, _ = run_in(tmp_path)
    train(run)
    save(run)
    (tmp_path / "last" / "manifest.json").unlink()
    with pytest.raises(UserError, match=r"last is damaged: manifest.json is missing"):
        run_in(tmp_path, resume=True)


def test_a_lost_average_is_damage_even_without_a_manifest(tmp_path):
    """As in a checkpoint of version 0.1. It would go on with the weights in place of their average."""
    run, _ = run_in(tmp_path)
    train(run)
    save(run)
    state = load_state(tmp_path / "last")
    state.pop("schema")
    state["recipe"]["model_ema"] = True
    torch.save(state, tmp_path / "last" / "state.pt")
    for name in ("manifest.json", "ema.safetensors"):
        (tmp_path / "last" / name).unlink()
    with pytest.raises(UserError, match=r"last is damaged: ema.safetensors is missing"):
        run_in(tmp_path, resume=True)
