"""The content of a run's checkpoints: a resumed run goes on as the same run, or is refused."""

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from safetensors import SafetensorError
from torch import Tensor

from backbones.errors import UserError
from backbones.recipe import Recipe, differences
from backbones.training.checkpoint import (
    EMA,
    LAST,
    SCHEMA,
    Weights,
    find_checkpoint,
    load_sound_state,
    load_weights,
    save_checkpoint,
    weights_file,
)
from backbones.training.control import Control
from backbones.training.evaluate import Evaluation
from backbones.training.guard import require_finite_weights
from backbones.training.launch import precision_name
from backbones.training.loop import Run, require_work_left, stop_if_not_finite
from backbones.training.optim import load_optimizer, save_optimizer

FIXED = ("model", "model_args", "batch_size", "seed", "optim.fusion_update", "optim.burnin_update")
"""Options that a resumed run must keep: the network, the images of each step, and what the optimizer carries."""
FREE = (
    "output", "resume", "data_dir", "workers", "device",
    "loading.read_threads", "loading.prefetch", "loading.hw_decoder_load", "loading.preallocate",
    "saving.ckpt_minutes", "saving.ckpt_every", "saving.checkpoint_hist",
    "waiting.timeout", "waiting.first_timeout",
)  # fmt: skip
"""Options that change nothing of what is computed."""

MAX_FAILED_SAVES = 3
"""Failures in a row that end a run."""

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
    control: Control | None = None
    """Decides between validations when to save and when to stop; None: never."""
    best_top1: float = -math.inf
    """Highest top-1 so far, in per cent."""
    last_step: int = -1
    """Step of ``last``, where this process has written it."""
    failed_saves: int = 0
    """Saves of ``last`` that failed, one after the other."""

    def after_step(self, run: Run) -> None:
        """Save where it is time to, or where a signal ends the run; then raise StoppedError, on every process."""
        if self.control is None:
            return
        decision = self.control.decide(run.step)
        if decision.save:
            stop_if_not_finite(run)  # on a GPU, the host may not know yet
            self.write_last(run, {}, owes_validation=run.is_validation_due)
            self.control.note_save()
            if decision.signal and self.failed_saves:
                raise UserError(f"stopped by a signal after step {run.step}, which could not be saved.")
        if decision.signal:
            raise self.control.stop(decision.signal)

    def validating(self) -> AbstractContextManager[None]:
        """Let a signal end the run at once during the block: ``last`` is written, and its validation is owed."""
        return self.control.interruptible() if self.control else nullcontext()

    def write_last(self, run: Run, evaluations: dict[str, Evaluation], *, owes_validation: bool) -> None:
        """Write ``last`` with everything that a resumed run needs. It can be written after any step.

        Args:
            run: the run.
            evaluations: figures of these weights by name; empty where they were not validated.
            owes_validation: the resumed run must validate before it trains.
        """
        state = self.training_state(run) | {"owes_validation": owes_validation, "schema": SCHEMA}
        if run.accelerator.is_main_process:
            is_new = run.step != self.last_step  # the same step with its figures takes the place of itself
            kept = self.recipe.saving.checkpoint_hist - 1 if is_new else 0
            with self._tolerate_failures(run):
                self._write(LAST, run, evaluations, state, kept=kept)
                self.last_step, self.failed_saves = run.step, 0

    @contextmanager
    def _tolerate_failures(self, run: Run) -> Iterator[None]:
        """Warn where a save fails, as on a full disk, and keep the checkpoints before. Many failures end the run."""
        try:
            yield
        except (OSError, RuntimeError, SafetensorError) as error:
            self.failed_saves += 1
            reason = str(error).strip().splitlines()[0]
            message = f"step {run.step} cannot be saved to {self.folder}: {reason}"
            if self.failed_saves >= MAX_FAILED_SAVES:
                raise UserError(f"{message}. It was attempt {self.failed_saves} in a row.") from error
            run.report.say("warning", f"{message}; the checkpoints before are kept, and the next save tries again")

    def write_best(self, run: Run, evaluations: dict[str, Evaluation]) -> None:
        """Write the weights as ``best``; the last of ``evaluations`` says how good they are."""
        self.best_top1 = list(evaluations.values())[-1].top1
        if run.accelerator.is_main_process:
            with self._tolerate_failures(run):
                self._write("best", run, evaluations, None, kept=0)

    def _write(
        self, name: str, run: Run, evaluations: dict[str, Evaluation], state: State | None, *, kept: int
    ) -> None:
        networks = average_statistics(run, state["batch_norm"] if state else [])
        for key, weights in networks.items():
            require_finite_weights(weights, f"{self.folder / name}: {key}")
        about = {
            "step": run.step,
            "images_seen": run.step * self.recipe.batch_size,
            "world_size": run.accelerator.num_processes,
            "network": network_hash(networks["val"]),
            "fingerprint": self.fingerprint,
            "classes": self.classes,
        }
        save_checkpoint(
            self.folder / name,
            networks["val"],
            self.description(run, evaluations),
            ema=networks.get("val_ema"),
            state=state,
            about=about,
            kept=kept,
        )

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
            "batch_norm": gather_statistics(run),
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
        if run.ema and state["recipe"]["model_ema"] and not (checkpoint / EMA).is_file():
            raise UserError(f"{checkpoint} is damaged: {EMA} is missing, but the run has a moving average.")
        for network, is_average in ((run.plain_model, False), *([(run.ema.module, True)] if run.ema else [])):
            file = weights_file(checkpoint, ema=is_average)
            load_weights(network, file, name=self.recipe.model, current_names=self.current_names)
        load_statistics(run, state.get("batch_norm", []))
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
    state = _current_form(load_sound_state(checkpoint))
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


def gather_statistics(run: Run) -> list[list[Tensor]]:
    """Return the buffers of each process's networks: within an epoch, BatchNorm statistics are each process's own."""
    own = [buffer.detach().cpu() for network in run.networks.values() for buffer in network.buffers()]
    if run.accelerator.num_processes == 1:
        return [own]
    return gather_object([own])


def average_statistics(run: Run, gathered: list[list[Tensor]]) -> dict[str, dict[str, Tensor]]:
    """Return the weights of each network, with the mean of the processes' statistics."""
    networks = {key: network.state_dict() for key, network in run.networks.items()}
    if len(gathered) > 1:
        values = iter(zip(*gathered, strict=True))
        for key, network in run.networks.items():
            for name, _ in network.named_buffers():
                mean = torch.stack([value.double() for value in next(values)]).mean(dim=0)
                if name in networks[key]:
                    networks[key][name] = mean.to(networks[key][name].dtype)
    return networks


def load_statistics(run: Run, gathered: list[list[Tensor]]) -> None:
    """Give this process its own buffers again; with another number of processes all have those of the first."""
    if len(gathered) == run.accelerator.num_processes > 1:
        buffers = [buffer for network in run.networks.values() for buffer in network.buffers()]
        for buffer, value in zip(buffers, gathered[run.accelerator.process_index], strict=True):
            buffer.copy_(value)


def network_hash(weights: Weights) -> str:
    """Return the sha256 of the names and shapes of all tensors."""
    return hashlib.sha256(str([(name, tuple(tensor.shape)) for name, tensor in weights.items()]).encode()).hexdigest()


def _current_form(state: State) -> State:
    """Return a state as this version writes it. Version 0.1 kept two numbers of the report by themselves."""
    if "report" in state:
        return state
    rows = state["reported"] if state["owes_validation"] else []
    return state | {
        "report": {"losses": [], "norms": {}, "rows": rows, "counters": {"data/replaced": state["replaced"]}}
    }
