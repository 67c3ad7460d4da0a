"""What a checkpoint of a run holds, so that it goes on as the same run, and the refusal to go on as another."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from backbones.errors import UserError
from backbones.recipe import Recipe, differences
from backbones.training.checkpoint import (
    find_checkpoint,
    load_state,
    load_weights,
    save_checkpoint,
    weights_file,
)
from backbones.training.evaluate import Evaluation
from backbones.training.launch import precision_name
from backbones.training.loop import Run, require_work_left
from backbones.training.optim import load_optimizer

FIXED = ("model", "model_args", "batch_size", "seed", "optim.fusion_update", "optim.burnin_update")
"""Options that decide which network it is, which images each step sees and what the optimizer carries: a resumed run
must keep them."""
FREE = (
    "output", "resume", "data_dir", "workers", "device",
    "loading.read_threads", "loading.prefetch", "loading.hw_decoder_load", "loading.preallocate",
)  # fmt: skip
"""Options that change nothing of what is computed."""


@dataclass(frozen=True)
class Snapshots:
    """Writes and reads the checkpoints of one run."""

    folder: Path
    """The run folder."""
    recipe: Recipe
    classes: tuple[str, ...]
    """Class names in the order of the logits."""
    fingerprint: str
    """Of the training images."""
    val_fingerprint: str
    """Of the validation images."""

    def __call__(self, run: Run, evaluations: dict[str, Evaluation], is_best: bool) -> None:  # noqa: FBT001
        """Write ``last`` (with the training state) and, when it is, ``best``."""
        about = self.description(run, evaluations)
        model, ema = run.plain_model.state_dict(), run.ema.module.state_dict() if run.ema else None
        if is_best:
            save_checkpoint(self.folder / "best", model, about, ema=ema)
        state = self.training_state(run) | {"owes_validation": not evaluations}
        save_checkpoint(self.folder / "last", model, about, ema=ema, state=state)

    def description(self, run: Run, evaluations: dict[str, Evaluation]) -> dict[str, Any]:
        """Return what a weights file says about itself: all that eval.py needs."""
        recipe = self.recipe.to_dict()
        return {
            "architecture": recipe["model"],
            "cfg": cfg_text(run),
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
            "images_seen": run.step * run.batch_size,
            "epoch": run.step / run.train_batches.steps_per_epoch,
            "evaluations": {name: asdict(evaluation) for name, evaluation in evaluations.items()},
        }

    def training_state(self, run: Run) -> dict[str, Any]:
        """Return everything else, as plain types. The data, the schedule and dropout need the step alone."""
        scaler = run.accelerator.scaler
        return {
            "step": run.step,
            "best_top1": run.best_top1,
            "replaced": run.replaced,
            "reported": run.reported,
            "optimizer": run.optimizer.state_dict(),
            "scaler": scaler.state_dict() if scaler else None,
            "recipe": self.recipe.to_dict(),
            "fingerprint": self.fingerprint,
            "cfg": cfg_text(run),
            "surroundings": self.surroundings(run.accelerator),
            "wandb_id": run.tracker.wandb.id if run.tracker and run.tracker.wandb else None,
        }

    def surroundings(self, accelerator: Accelerator) -> dict[str, Any]:
        """Return what is not in the recipe but makes a difference: to the last bits, or to the figures."""
        return {
            "processes": accelerator.num_processes,
            "torch": str(torch.__version__),
            "validation images": self.val_fingerprint[:12],
        }

    def read_state(self, accelerator: Accelerator) -> tuple[dict[str, Any], dict[str, tuple[Any, Any]]]:
        """Return the training state to go on from, and which options and surroundings changed since.

        Raises ``UserError`` when there is none, or when it is of another network or data set.
        """
        state = load_state(find_checkpoint(Path(str(self.recipe.resume))))
        changed = differences(state["recipe"], self.recipe.to_dict())
        for option, (before, after) in changed.items():
            if option in FIXED or option.partition(".")[0] in FIXED:
                raise UserError(
                    f"--resume: the checkpoint was made with {option}={before!r}, not {after!r}; a run cannot "
                    "change that half-way. Drop the option, or start a new run."
                )
        if state["fingerprint"] != self.fingerprint:
            raise UserError(
                "--resume: the training images (names, sizes, classes or labels) are not those of the checkpoint; a "
                "file that was replaced and a new quarantine.tsv change them, too.\n"
                "Point --data-dir to the same data set (without a new quarantine.tsv: --bad-images skip goes past bad "
                "images), or start a new run."
            )
        changed |= differences(state["surroundings"], self.surroundings(accelerator))
        return state, {key: values for key, values in changed.items() if key not in FREE}

    def restore(self, run: Run, state: dict[str, Any]) -> None:
        """Put the run where the checkpoint was written; in another folder it has yet to find its best."""
        checkpoint = find_checkpoint(Path(str(self.recipe.resume)))
        if state["cfg"] != cfg_text(run):
            raise UserError(
                f"--resume: {self.recipe.model} is not the network any more that the checkpoint was made with."
            )
        load_weights(run.plain_model, weights_file(checkpoint, ema=False), name=self.recipe.model)
        if run.ema:
            load_weights(run.ema.module, weights_file(checkpoint, ema=True), name=self.recipe.model)
        load_optimizer(run.optimizer, state["optimizer"])
        if run.accelerator.scaler and state["scaler"]:
            run.accelerator.scaler.load_state_dict(state["scaler"])
        run.step, run.owes_validation = state["step"], state["owes_validation"]
        run.replaced = run.replaced_before = state["replaced"]
        run.reported = state["reported"] if run.owes_validation else []
        require_work_left(run)
        if checkpoint.parent.resolve() == self.folder.resolve():
            run.best_top1 = state["best_top1"]
        else:
            state.pop("wandb_id")


def cfg_text(run: Run) -> str | None:
    """Return the whole text of the cfg that the network was built from; None for a network with a name."""
    return getattr(run.plain_model, "cfg_text", None)
