"""A checkpoint becomes the run again, or is refused by name."""

import json
import math
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import nn
from torch.optim import SGD

from backbones.errors import UserError
from backbones.recipe import Log, Optim, Recipe
from backbones.training.checkpoint import load_state
from backbones.training.loop import Run, fit
from backbones.training.manifest import measure, named_tensors
from backbones.training.optim import create_optimizer
from backbones.training.resume import NEW_RUN, load_run_state, read_state
from tests import accelerate_state
from tests.training.make_runs import make_run, network, same, train, weights
from tests.training.make_snapshots import rows, run_in, save, snapshots_in

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


def test_a_state_with_the_losses_of_the_first_process_is_read(tmp_path):
    """As in checkpoints of schema 3, between two rows."""
    run, _ = run_in(tmp_path)
    train(run)
    save(run)
    state = load_state(tmp_path / "last")
    losses = [1.5, 2.0]
    state |= {"schema": 3, "report": state["report"] | {"losses": losses}}
    torch.save(state, tmp_path / "last" / "state.pt")
    pretend_sound(tmp_path / "last")
    resumed, _ = run_in(tmp_path, resume=True)
    assert [loss.item() for loss in resumed.report.losses] == losses


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


# A test of the tests: each part of a checkpoint that is lost is seen


def pretend_sound(folder: Path) -> None:
    """Write a manifest that fits the files as they are."""
    manifest = json.loads((folder / "manifest.json").read_text())
    files = [path for path in folder.iterdir() if path.name != "manifest.json"]
    manifest |= {"files": {path.name: measure(path) for path in files}, "tensors": {}}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def lose_from_state(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def lose(folder: Path) -> None:
        state = load_state(folder)
        change(state)
        torch.save(state, folder / "state.pt")
        pretend_sound(folder)

    return lose


def lose_average(folder: Path) -> None:
    (folder / "ema.safetensors").unlink()
    pretend_sound(folder)


def forget_updates(state: dict[str, Any]) -> None:
    for group in state["optimizer"]["param_groups"]:
        group.pop("updates", None)
    state["optimizer"]["param_groups"][-1]["updates"] = 0


class Fused(nn.Module):
    """A network with one fusion weight, which darknet's rule holds until step 6."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.fusion = network(dropout=0.5), nn.Parameter(torch.ones(2))

    def forward(self, x):
        return self.inner(x * self.fusion[0] + x.flip(-1) * self.fusion[1])


def create(model: nn.Module) -> SGD:
    optim = Optim(fusion_update="darknet", burnin_update=3)
    return create_optimizer(model, optim, lr=0.1, fusion_weights=[(model.fusion, 3)], batch_size=6, burn_in=2)  # type: ignore[list-item]


def full_run(folder: Path, *, resume: bool = False, **fields) -> tuple[Run, bool]:
    """Return a run with average, fusion weights in burn-in and a gradient scaler, and whether it owes a validation."""
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=2)
    options = {"model_ema": True, "precision": "fp16"}
    return run_in(folder, resume=resume, options=options, model=Fused(), scaler=scaler, create=create, **fields)


def fingerprint(run: Run) -> str:
    """Return the sha256 of weights, average, optimizer and scaler."""
    assert run.ema is not None
    parts = [run.plain_model.state_dict(), run.ema.module.state_dict(), run.optimizer.optimizer.state_dict()]
    tensors = {name: tensor.tolist() for name, tensor in named_tensors(parts)}
    scaler = run.accelerator.scaler.state_dict() if run.accelerator.scaler else None
    groups = [{key: value for key, value in group.items() if key != "params"} for group in run.optimizer.param_groups]
    return sha256(repr((run.step, tensors, groups, scaler)).encode()).hexdigest()


class KilledError(Exception):
    """The end of a run after it was saved."""


def save_and_stop(run: Run) -> None:
    save(run)
    raise KilledError


def goes_on_as_the_same_run(folder: Path, lose: Callable[[Path], None]) -> bool:
    straight, _ = full_run(folder / "straight")
    fit(straight)
    first, _ = full_run(folder / "cut", on_step=lambda share: save_and_stop(first) if share == 5 / 8 else None)
    with pytest.raises(KilledError):
        fit(first)
    lose(folder / "cut" / "last")
    second, _ = full_run(folder / "cut", resume=True)
    fit(second)
    return fingerprint(straight) == fingerprint(second) and rows(folder / "straight") == rows(folder / "cut")


def test_a_run_with_everything_goes_on_as_the_same_run(tmp_path):
    assert goes_on_as_the_same_run(tmp_path, pretend_sound)


@pytest.mark.parametrize(
    ("lose", "message"),
    [
        (lose_average, "ema.safetensors is missing"),
        (
            lose_from_state(lambda state: state["optimizer"]["state"].clear()),
            "the momenta of the optimizer",
        ),
        (lose_from_state(lambda state: state.pop("step")), "its state has no step"),
        (lose_from_state(lambda state: state.update(scaler=None)), "the state of the gradient scaler is missing"),
        (lose_from_state(lambda state: state.pop("skipped")), "its state has no skipped"),
    ],
)
def test_a_part_that_is_lost_is_named(tmp_path, lose, message):
    with pytest.raises(UserError, match=f"last is damaged: {message}"):
        goes_on_as_the_same_run(tmp_path, lose)


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state.update(step=4),
        forget_updates,
        lambda state: state["scaler"].update(scale=1024.0),
        lambda state: state["optimizer"]["state"].pop(0),
        lambda state: state["optimizer"]["state"][0]["momentum_buffer"].zero_(),
        lambda state: state["report"]["losses"][0].clear(),
        lambda state: state.update(skipped=1),
    ],
)
def test_a_part_that_is_wrong_is_not_the_same_run(tmp_path, change):
    """Nothing names these; so the comparison itself must see each of them."""
    assert not goes_on_as_the_same_run(tmp_path, lose_from_state(change))


def test_momenta_of_another_shape_are_refused(tmp_path):
    run, _ = run_in(tmp_path)
    train(run)
    save(run)

    def widen(state: dict[str, Any]) -> None:
        state["optimizer"]["state"][0]["momentum_buffer"] = torch.zeros(1)

    lose_from_state(widen)(tmp_path / "last")
    with pytest.raises(UserError, match=r"momentum_buffer of parameter 0 has the shape \(1,\), and"):
        run_in(tmp_path, resume=True)


@pytest.mark.parametrize(("written", "read"), [(True, "default"), (False, False), ("max-autotune", "max-autotune")])
def test_a_state_from_before_the_modes_of_compilation_has_the_default_one(tmp_path, written, read):
    run, _ = run_in(tmp_path)
    save(run, owes_validation=False)
    state = load_state(tmp_path / "last")
    state.pop("schema")
    torch.save(state | {"recipe": state["recipe"] | {"torchcompile": written}}, tmp_path / "last" / "state.pt")
    (tmp_path / "last" / "manifest.json").unlink()
    assert load_run_state(tmp_path / "last")["recipe"]["torchcompile"] == read
