"""The content of a run's checkpoints: a resumed run goes on as the same run, or is refused."""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from backbones.errors import UserError
from backbones.recipe import Recipe, differences
from backbones.training.checkpoint import (
    Weights,
    find_checkpoint,
    load_state,
    load_weights,
    save_checkpoint,
    weights_file,
)
from backbones.training.evaluate import Evaluation
from backbones.training.guard import require_finite_weights
from backbones.training.launch import precision_name
from backbones.training.loop import Run, require_work_left
from backbones.training.optim import load_optimizer, save_optimizer

FIXED = ("model", "model_args", "batch_size", "seed", "optim.fusion_update", "optim.burnin_update")
"""Options that a resumed run must keep: the network, the images of each step, and what the optimizer carries."""
FREE = (
    "output", "resume", "data_dir", "workers", "device",
    "loading.read_threads", "loading.prefetch", "loading.hw_decoder_load", "loading.preallocate",
)  # fmt: skip
"""Options that change nothing of what is computed."""

State = dict[str, Any]
"""Everything in a checkpoint but weights, as plain types."""


@dataclass(eq=False)
class Snapshots:
    """Writer and reader of the checkpoints of one run."""

    folder: Path
    """The run folder."""
    recipe: Recipe
    classes: tuple[str, ...]
    """Class names in the order of the logits."""
    fingerprint: str
    """Fingerprint of the training images."""
    val_fingerprint: str
    """Fingerprint of the validation images."""
    cfg: str | None = None
    """Text of the darknet cfg that the network was built from; None for a network with a name."""
    current_names: Callable[[Weights], Weights] = dict
    """Renames the tensors of checkpoints of earlier versions."""
    best_top1: float = -math.inf
    """Highest top-1 so far, in per cent."""

    def write_last(self, run: Run, evaluations: dict[str, Evaluation], *, owes_validation: bool) -> None:
        """Write ``last`` with everything that a resumed run needs. It can be written after any step.

        Args:
            run: the run.
            evaluations: figures of these weights by name; empty where they were not validated.
            owes_validation: the resumed run must validate before it trains.
        """
        if run.accelerator.is_main_process:
            state = self.training_state(run) | {"owes_validation": owes_validation}
            self._write("last", run, evaluations, state)

    def write_best(self, run: Run, evaluations: dict[str, Evaluation]) -> None:
        """Write the weights as ``best``; the last of ``evaluations`` says how good they are."""
        self.best_top1 = list(evaluations.values())[-1].top1
        if run.accelerator.is_main_process:
            self._write("best", run, evaluations, None)

    def _write(self, name: str, run: Run, evaluations: dict[str, Evaluation], state: State | None) -> None:
        ema = run.ema.module.state_dict() if run.ema else None
        for key, weights in (("the network", run.plain_model.state_dict()), ("the moving average", ema or {})):
            require_finite_weights(weights, f"{name}: {key}")
        about = self.description(run, evaluations)
        save_checkpoint(self.folder / name, run.plain_model.state_dict(), about, ema=ema, state=state)

    def description(self, run: Run, evaluations: dict[str, Evaluation]) -> dict[str, Any]:
        """Return what a weights file says about itself: all that eval.py needs."""
        recipe = self.recipe.to_dict()
        return {
            "architecture": recipe["model"],
            "cfg": self.cfg,
            "model_args": recipe["model_args"],
            "classes": self.classes,
            "img_size": recipe["img_size"],
            "preprocess": recipe["preprocess"],
            "channels_last": recipe["channels_last"],
            "loader": recipe["loader"],
            "val_fingerprint": self.val_fingerprint,
            "precision": precision_name(run.accelerator),
            "data_dir": recipe["data_dir"] and str(Path(recipe["data_dir"]).resolve()),
            "step": run.step,
            "images_seen": run.step * recipe["batch_size"],
            "epoch": run.step / run.train_batches.steps_per_epoch,
            "evaluations": {name: asdict(evaluation) for name, evaluation in evaluations.items()},
        }

    def training_state(self, run: Run) -> State:
        """Return everything but weights. The data, the schedule and dropout need the step alone."""
        scaler = run.accelerator.scaler
        return {
            "step": run.step,
            "best_top1": self.best_top1,
            "report": run.report.state_dict(),
            "optimizer": save_optimizer(run.optimizer.optimizer),
            "scaler": scaler.state_dict() if scaler else None,
            "recipe": self.recipe.to_dict(),
            "fingerprint": self.fingerprint,
            "cfg": self.cfg,
            "surroundings": surroundings(run.accelerator, self.val_fingerprint),
            "wandb_id": run.report.tracker.wandb_id if run.report.tracker else None,
        }

    def restore(self, run: Run, state: State) -> None:
        """Put the run where the checkpoint was written.

        Raises:
            UserError: the checkpoint is of another network, or the run has no work left.
        """
        if state["cfg"] != self.cfg:
            raise UserError(
                f"--resume: {self.recipe.model} is not the network any more that the checkpoint was made with."
            )
        checkpoint = find_checkpoint(Path(str(self.recipe.resume)))
        for network, is_average in ((run.plain_model, False), *([(run.ema.module, True)] if run.ema else [])):
            file = weights_file(checkpoint, ema=is_average)
            load_weights(network, file, name=self.recipe.model, current_names=self.current_names)
        load_optimizer(run.optimizer.optimizer, state["optimizer"])
        if run.accelerator.scaler and state["scaler"]:
            run.accelerator.scaler.load_state_dict(state["scaler"])
        run.step, self.best_top1 = state["step"], state["best_top1"]
        run.report.load_state_dict(state["report"])
        require_work_left(run, owes_validation=state["owes_validation"])


NEW_RUN: State = {"step": 0, "owes_validation": False, "best_top1": -math.inf, "wandb_id": None}
"""The state that a run begins with."""


def read_state(
    recipe: Recipe, folder: Path, accelerator: Accelerator, *, train: str, val: str
) -> tuple[State, dict[str, tuple[Any, Any]]]:
    """Return the state that a run goes on from, and the options and surroundings that changed since.

    In another ``folder`` than the checkpoint's, the run has yet to find its best and has a W&B run of its own.

    Args:
        recipe: the recipe; without ``resume`` the run begins at step 0.
        folder: the run folder.
        accelerator: of this process.
        train: fingerprint of the training images.
        val: fingerprint of the validation images.

    Raises:
        UserError: there is no such checkpoint, or it is of another network or data set.
    """
    if recipe.resume is None:
        return NEW_RUN, {}
    checkpoint = find_checkpoint(Path(recipe.resume))
    state = _current_form(load_state(checkpoint))
    changed = differences(state["recipe"], recipe.to_dict())
    _require_same_run(state, changed, train)
    changed |= differences(state["surroundings"], surroundings(accelerator, val))
    if checkpoint.parent.resolve() != folder.resolve():
        state |= {key: NEW_RUN[key] for key in ("best_top1", "wandb_id")}
    return state, {key: values for key, values in changed.items() if key not in FREE}


def _require_same_run(state: State, changed: Mapping[str, tuple[Any, Any]], train: str) -> None:
    for option, (before, after) in changed.items():
        if option in FIXED or option.partition(".")[0] in FIXED:
            raise UserError(
                f"--resume: the checkpoint was made with {option}={before!r}, not {after!r}; a run cannot "
                "change that half-way. Drop the option, or start a new run."
            )
    if state["fingerprint"] != train:
        raise UserError(
            "--resume: the training images (names, sizes, classes or labels) are not those of the checkpoint; a "
            "file that was replaced and a new quarantine.tsv change them, too.\n"
            "Point --data-dir to the same data set (without a new quarantine.tsv: --bad-images skip goes past bad "
            "images), or start a new run."
        )


def surroundings(accelerator: Accelerator, val_fingerprint: str) -> dict[str, Any]:
    """Return what is not in the recipe but makes a difference: to the last bits, or to the figures."""
    return {
        "processes": accelerator.num_processes,
        "torch": str(torch.__version__),
        "validation images": val_fingerprint[:12],
    }


def _current_form(state: State) -> State:
    """Return a state as this version writes it. Version 0.1 kept two numbers of the report by themselves."""
    if "report" in state:
        return state
    rows = state["reported"] if state["owes_validation"] else []
    return state | {
        "report": {"losses": [], "norms": {}, "rows": rows, "counters": {"data/replaced": state["replaced"]}}
    }
