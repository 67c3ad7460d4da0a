"""The checkpoints of a run: when they are written, what is in them, and how a run goes back to one."""

import errno
import hashlib
import math
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from accelerate.utils import broadcast_object_list

from backbones import terminal
from backbones.errors import UserError
from backbones.recipe import Recipe
from backbones.training.checkpoint import Weights, find_resumable, save_checkpoint
from backbones.training.control import Control
from backbones.training.evaluate import Evaluation
from backbones.training.guard import NotFiniteError, require_finite_weights
from backbones.training.launch import precision_name
from backbones.training.loop import Run, require_work_left, stop_if_not_finite
from backbones.training.manifest import SCHEMA
from backbones.training.optim import save_optimizer
from backbones.training.resume import State, load_run_state, restore_run, surroundings
from backbones.training.run_files import LAST, find_checkpoint
from backbones.training.statistics import average_statistics, gather_statistics
from backbones.training.writer import Writer, copy_to_host, count_bytes

MAX_ROLLBACKS = 3
"""Rollbacks of a run after which a step that is not finite ends it."""

SPARE_BYTES = 1 << 20
"""Free space beyond the tensors that a save asks for."""


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
    timm_config: Mapping[str, Any] | None = None
    """Description of the network for timm; None where timm has no such network."""
    best_top1: float = -math.inf
    """Highest top-1 so far, in per cent."""
    rollbacks: int = 0
    """Rollbacks of the run so far."""
    last_step: int = -1
    """Step of ``last``, where this process has written it."""
    writer: Writer = field(default_factory=lambda: Writer(lambda text: terminal.say("warning", text)))
    """Writes while training goes on; on the first process only."""

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Wait for the writer at the end of the block, also after an error."""
        try:
            yield
        finally:
            self.writer.close()

    def require_space(self, run: Run) -> None:
        """Raise UserError where the disk has no room for two checkpoints; warn where those to be kept would not fit."""
        if not run.accelerator.is_main_process:
            return
        parameters = sum(parameter.numel() * parameter.element_size() for parameter in run.model.parameters())
        one = count_bytes([network.state_dict() for network in run.networks.values()]) + parameters
        free, kept = free_space(self.folder), self.recipe.saving.checkpoint_hist + 2
        text = f"a checkpoint has about {one / 1e6:.0f} MB, and the disk of {self.folder} has {free / 1e6:.0f} MB left"
        if free < 2 * one + SPARE_BYTES:
            raise UserError(f"{text}. Free some, or name another --output.")
        if free < kept * one:
            terminal.say("warning", f"{text}: {kept} would not fit. Free some, or lower --checkpoint-hist.")

    def after_step(self, run: Run) -> None:
        """Save where it is time to, or where a signal ends the run; then raise StoppedError, on every process."""
        self.writer.poll()
        if self.control is None:
            return
        decision = self.control.decide(run.step)
        if decision.save:
            stop_if_not_finite(run)  # on a GPU, the host may not know yet
            self.write_last(run, {}, owes_validation=run.is_validation_due)
            self.control.note_save()
        if decision.signal:
            self.finish()
            raise self.control.stop(decision.signal)

    @contextmanager
    def validating(self) -> Iterator[Callable[[], None]]:
        """Let a signal end the run at once during the block: ``last`` is written, and its validation is owed.

        Yields the function that the validation calls to show that it goes on.
        """
        self.writer.settle()
        is_saved = self.writer.failures == 0
        with self.control.interruptible() if self.control and is_saved else nullcontext():
            self._beat("the validation")
            yield partial(self._beat, "the validation")

    def write_last(self, run: Run, evaluations: dict[str, Evaluation], *, owes_validation: bool) -> None:
        """Write ``last`` with everything that a resumed run needs, in the background. This may come after any step.

        Args:
            run: the run.
            evaluations: figures of these weights by name; empty where they were not validated.
            owes_validation: the resumed run must validate before it trains.
        """
        self._beat("a save")
        state = self.training_state(run) | {"owes_validation": owes_validation, "schema": SCHEMA}
        if run.accelerator.is_main_process:
            self.writer.settle()
            is_new = run.step != self.last_step  # the same step with its figures takes the place of itself
            self._start_writing(LAST, run, evaluations, state, self.recipe.saving.checkpoint_hist - 1 if is_new else 0)
        self._beat(f"step {run.step + 1}")

    def write_best(self, run: Run, evaluations: dict[str, Evaluation]) -> None:
        """Write the weights as ``best``, in the background; the last of ``evaluations`` says how good they are."""
        self.best_top1 = list(evaluations.values())[-1].top1
        if run.accelerator.is_main_process:
            self._start_writing("best", run, evaluations, None, 0)

    def finish(self) -> None:
        """Wait until everything is written. Raises UserError where it cannot be."""
        self.writer.finish()

    def roll_back(self, run: Run, error: NotFiniteError) -> bool:
        """Put the run back to its newest sound checkpoint, to go on with the images after those of the bad step.

        Returns whether the run owes a validation. Raises the error where there is no checkpoint, the recipe says to
        stop, or too many rollbacks did not help.
        """
        if self.recipe.on_nan == "stop":
            raise error
        checkpoint = self._find_newest(run)
        if checkpoint is None:
            raise NotFiniteError(f"{error}\nThere is no checkpoint yet to go back to.", error.step)
        if self.rollbacks >= MAX_ROLLBACKS:
            raise NotFiniteError(f"{error}\nIt is the end after {self.rollbacks} rollbacks.", error.step)
        first_good = error.step + run.skipped
        state = load_run_state(checkpoint)
        self._restore(run, checkpoint, state)
        run.skipped = first_good - run.step
        self.rollbacks, self.last_step = self.rollbacks + 1, -1
        self._report_rollback(run, error)
        return state["owes_validation"]

    def _beat(self, phase: str) -> None:
        if self.control:
            self.control.watchdog.beat(phase)

    def _find_newest(self, run: Run) -> Path | None:
        """Return the newest sound checkpoint, the same one on every process."""
        found: list[Path | None] = [None]
        if run.accelerator.is_main_process:
            self.writer.finish()
            with suppress(UserError):  # none is sound
                found[0], _ = find_resumable(self.folder)
        return broadcast_object_list(found)[0]

    def _report_rollback(self, run: Run, error: NotFiniteError) -> None:
        if run.report.tracker:
            run.report.tracker.rewind(run.step)
        text = (
            f"{error}\nBack to step {run.step}, and on with the images that come after the bad step: "
            f"rollback {self.rollbacks} of at most {MAX_ROLLBACKS}."
        )
        run.report.event(run.step, "rollback", text, bad_step=error.step, skipped=run.skipped)

    def _start_writing(
        self, name: str, run: Run, evaluations: dict[str, Evaluation], state: State | None, kept: int
    ) -> None:
        """Copy everything that is written, then let the writer write it."""
        networks = copy_to_host(average_statistics(run, state["batch_norm"] if state else []))
        for key, weights in networks.items():
            require_finite_weights(weights, f"{self.folder / name}: {key}")
        state, step = copy_to_host(state), run.step
        description, about = self.description(run, evaluations), self.about(run, networks["val"])

        def write() -> None:
            require_space(self.folder, count_bytes([networks, state]) + SPARE_BYTES)
            faults = save_checkpoint(
                self.folder / name,
                networks["val"],
                description,
                ema=networks.get("val_ema"),
                state=state,
                config=self.timm_config,
                about=about,
                kept=kept,
            )
            self.last_step = step if name == LAST else self.last_step
            for fault in faults:
                self.writer.warn(f"{fault} It was set aside.")

        self.writer.start(f"writing {self.folder / name}", write)

    def about(self, run: Run, weights: Weights) -> dict[str, Any]:
        """Return what a manifest says about the checkpoint."""
        return {
            "step": run.step,
            "images_seen": run.step * self.recipe.batch_size,
            "world_size": run.accelerator.num_processes,
            "network": network_hash(weights),
            "fingerprint": self.fingerprint,
            "classes": self.classes,
        }

    def description(self, run: Run, evaluations: dict[str, Evaluation]) -> dict[str, Any]:
        """Return what a weights file says about itself: all that eval.py needs."""
        recipe = self.recipe.to_dict()
        return {
            "architecture": recipe["model"],
            "cfg": self.cfg,
            "model_args": recipe["model_args"],
            "classes": self.classes,
            "init": {name: recipe[name] for name in ("init_weights", "pretrained", "init_sha256")},
            "img_size": recipe["img_size"],
            "preprocess": recipe["preprocess"],
            "channels_last": recipe["channels_last"],
            "loader": recipe["loader"],
            "val_fingerprint": self.val_fingerprint,
            "precision": precision_name(run.accelerator),
            "tf32": recipe["tf32"],
            "fold": recipe["fold"],
            "data_dir": recipe["data_dir"] and str(Path(recipe["data_dir"]).resolve()),
            "layout": recipe["layout"],
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
            "skipped": run.skipped,
            "rollbacks": self.rollbacks,
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
        """Put the run where the checkpoint of the recipe's ``resume`` was written.

        Raises:
            UserError: the checkpoint is of another network, or the run has no work left.
        """
        if state["cfg"] != self.cfg:
            raise UserError(
                f"--resume: {self.recipe.model} is not the network any more that the checkpoint was made with."
            )
        self._restore(run, find_checkpoint(Path(str(self.recipe.resume))), state)
        self.best_top1, self.rollbacks = state["best_top1"], state["rollbacks"]
        require_work_left(run, owes_validation=state["owes_validation"])

    def _restore(self, run: Run, checkpoint: Path, state: State) -> None:
        restore_run(run, checkpoint, state, name=self.recipe.model, current_names=self.current_names)


def network_hash(weights: Weights) -> str:
    """Return the sha256 of the names and shapes of all tensors."""
    return hashlib.sha256(str([(name, tuple(tensor.shape)) for name, tensor in weights.items()]).encode()).hexdigest()


def free_space(folder: Path) -> int:
    """Return the free bytes on the disk of ``folder``, which need not exist yet."""
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(existing).free


def require_space(folder: Path, needed: int) -> None:
    """Raise OSError where the disk of ``folder`` has less than ``needed`` bytes left."""
    free = free_space(folder)
    if free < needed:
        raise OSError(
            errno.ENOSPC, f"{needed / 1e6:.0f} MB are needed, and the disk has {free / 1e6:.0f} MB left", str(folder)
        )
