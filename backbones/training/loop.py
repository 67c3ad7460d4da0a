"""The training loop: `fit`, `train_epoch` and `train_step`."""

import math
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from tempfile import gettempdir
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from timm.utils.distributed import distribute_bn
from timm.utils.model_ema import ModelEmaV3
from torch import Tensor, nn

from backbones.errors import UserError
from backbones.recipe import Recipe
from backbones.training.evaluate import Evaluation, evaluate
from backbones.training.guard import REMEDY, NotFiniteError, forbid_update, measure_gradient, spread_nan, write_names
from backbones.training.report import Report, show_validation
from backbones.training.schedule import Schedule, set_lr


class TrainBatches(Protocol):
    """Interface of the training loader."""

    steps_per_epoch: int

    def from_step(self, step: int) -> Generator[Any, None, None]:
        """Yield this process's micro-batches from optimizer step ``step`` of the run on, without end."""
        ...

    def counters(self) -> dict[str, int]:
        """Return what this process has counted so far, such as replaced images, by the name of the metric."""
        ...

    def names(self, step: int) -> list[str]:
        """Return the images of this process in optimizer step ``step``, from 0."""
        ...


class ValBatches(Protocol):
    """Interface of the validation loader."""

    n: int
    """Images of the whole split."""

    def __iter__(self) -> Iterator[Any]:
        """Yield this process's share of the split, in batches."""
        ...


class Checkpoints(Protocol):
    """Interface of the writer of checkpoints. Every process calls it; the first one writes."""

    best_top1: float
    """Highest top-1 so far, in per cent."""
    folder: Path
    """The run folder."""

    def write_last(self, run: "Run", evaluations: dict[str, Evaluation], *, owes_validation: bool) -> None:
        """Write the state that a resumed run goes on from, and whether it must validate first."""
        ...

    def after_step(self, run: "Run") -> None:
        """Write ``last`` where it is time to; end the run where it was told to stop."""
        ...

    def validating(self) -> AbstractContextManager[Callable[[], None]]:
        """Let a signal end the run at once during the block; yield a function that shows that it goes on."""
        ...

    def write_best(self, run: "Run", evaluations: dict[str, Evaluation]) -> None:
        """Write the weights of the best validation."""
        ...

    def finish(self) -> None:
        """Wait until everything is written."""
        ...

    def roll_back(self, run: "Run", error: NotFiniteError) -> bool:
        """Go back to before a step that is not finite, and return whether a validation is owed; or raise the error."""
        ...


class Pending(Protocol):
    """Interface of what the layers add up during a step."""

    def apply(self) -> None:
        """Use it; called after each optimizer step."""
        ...

    def forget(self) -> None:
        """Drop it; called where a step was not finished."""
        ...


class NothingPending:
    """Layers that add nothing up."""

    def apply(self) -> None:
        """Do nothing."""

    def forget(self) -> None:
        """Do nothing."""


class NoCheckpoints:
    """Checkpoints of a run that is only measured: it saves nothing."""

    best_top1 = math.inf
    folder = Path(gettempdir())

    def write_last(self, run: "Run", evaluations: dict[str, Evaluation], *, owes_validation: bool) -> None:
        """Do nothing."""

    def after_step(self, run: "Run") -> None:
        """Do nothing."""

    def validating(self) -> AbstractContextManager[Callable[[], None]]:
        """Do nothing."""
        return nullcontext(lambda: None)

    def write_best(self, run: "Run", evaluations: dict[str, Evaluation]) -> None:
        """Do nothing."""

    def finish(self) -> None:
        """Do nothing."""

    def roll_back(self, run: "Run", error: NotFiniteError) -> bool:  # noqa: ARG002
        """Raise the error: there is nothing to go back to."""
        raise error


@dataclass
class Run:
    """The parts that a step moves, once per process. Everything random depends on ``step`` and the recipe's seed."""

    accelerator: Accelerator
    model: nn.Module
    optimizer: AcceleratedOptimizer
    schedule: Schedule
    recipe: Recipe
    total_steps: int
    train_batches: TrainBatches
    val_batches: ValBatches
    mix: Callable[[Any], tuple[Tensor, Tensor]]
    """Batch -> images (N, 3, H, W), soft targets (N, K)."""
    checkpoints: Checkpoints
    report: Report
    on_step: Callable[[float], None] = lambda _share: None
    """Called before each step with the share of the run that is done, from 0 up to 1 (DropBlock's strength)."""
    pending: Pending = field(default_factory=NothingPending)
    """Statistics of batch normalization that wait for the end of the step."""
    ema: ModelEmaV3 | None = None
    padded_batch: int | None = None
    """Images of a full validation batch, to which a compiled network pads smaller ones; None: it is not compiled."""
    keeps_gradients: bool = False
    """Whether gradients are filled with zeros and not freed after a step."""
    for_evaluation: Callable[[nn.Module], nn.Module] = lambda network: network
    """Network -> the one that is evaluated in its place (BatchNorm folded)."""
    step: int = 0
    """Optimizer steps made."""
    skipped: int = 0
    """Steps' worth of images that rollbacks skipped: step s takes the images of step s + skipped."""

    @property
    def epoch(self) -> int:
        """Epoch that the next step belongs to, from 0."""
        return self.step // self.train_batches.steps_per_epoch

    @property
    def is_validation_due(self) -> bool:
        """Whether the step just made is followed by a validation."""
        is_epoch_over = self.step % self.train_batches.steps_per_epoch == 0
        return self.step >= self.total_steps or (is_epoch_over and self.epoch % self.recipe.val_interval == 0)

    @cached_property
    def plain_model(self) -> nn.Module:
        """The network without the wrappers of DDP and torch.compile; to find it takes a walk over its layers."""
        return self.accelerator.unwrap_model(self.model, keep_torch_compile=False)

    @cached_property
    def parameters(self) -> list[nn.Parameter]:
        """The parameters of the network, in its order."""
        return list(self.model.parameters())

    @property
    def networks(self) -> dict[str, nn.Module]:
        """Networks to validate, by name: the network and, where there is one, its moving average."""
        return {"val": self.plain_model} | ({"val_ema": self.ema.module} if self.ema else {})


def fit(run: Run, *, owes_validation: bool = False) -> Evaluation:
    """Train until ``total_steps`` and return the figures of the last validation (of the EMA, where there is one).

    Args:
        run: what to train.
        owes_validation: the checkpoint that the run goes on from was saved before its validation ended: validate first.
    """
    require_work_left(run, owes_validation=owes_validation)
    evaluation = None
    with run.report.running(run.step):
        while evaluation is None:
            try:
                evaluation = _fit_without_rollback(run, owes_validation=owes_validation)
            except NotFiniteError as error:
                run.pending.forget()
                owes_validation = run.checkpoints.roll_back(run, error)
    run.checkpoints.finish()
    return evaluation


def _fit_without_rollback(run: Run, *, owes_validation: bool) -> Evaluation:
    with closing(run.train_batches.from_step(run.step + run.skipped)) as batches:
        evaluation = validate_and_save(run) if owes_validation else None
        while run.step < run.total_steps:
            train_epoch(run, batches)
            if run.is_validation_due:
                evaluation = validate_and_save(run)
    assert evaluation is not None
    return evaluation


def require_work_left(run: Run, *, owes_validation: bool) -> None:
    """Refuse to go on with a run that is over."""
    if run.step >= run.total_steps and not owes_validation:
        raise UserError(f"the run already has all its {run.total_steps} steps: raise --epochs or --steps to go on.")


def train_epoch(run: Run, batches: Iterator[Any]) -> None:
    """Make the optimizer steps that are left of the current epoch, or of the run."""
    run.model.train()
    end = min((run.epoch + 1) * run.train_batches.steps_per_epoch, run.total_steps)
    while run.step < end:
        train_step(run, batches)
    _log(run)


def train_step(run: Run, batches: Iterator[Any]) -> None:
    """Make one optimizer step: set the learning rate, mix, forward, backward, step, count."""
    set_lr(run.optimizer.optimizer, run.schedule(run.step + 1))
    run.on_step(run.step / run.total_steps)
    for micro_batch in range(run.accelerator.gradient_accumulation_steps):
        _seed_random_numbers(run, micro_batch)
        images, targets = run.mix(run.report.stopwatch.wait_for(batches))
        with run.accelerator.accumulate(run.model):
            loss = F.cross_entropy(run.model(images), targets)
            run.accelerator.backward(spread_nan(loss))
            if run.accelerator.sync_gradients:
                _update(run)
        run.report.losses.append(loss.detach())
    run.step += 1
    run.pending.apply()
    if run.ema:
        run.ema.update(run.plain_model, step=run.step)
    if run.report.count_step(run.step):
        _log(run)
    run.checkpoints.after_step(run)


def validate_and_save(run: Run) -> Evaluation:
    """Evaluate the network (and its average), report the figures, and save ``last`` and perhaps ``best``.

    ``last`` is written before, too: what was trained is safe when the evaluation fails.
    """
    _log(run)
    run.report.show(run.step, now=run.report.is_live)
    _average_batch_norm(run)
    run.checkpoints.write_last(run, {}, owes_validation=True)
    with run.checkpoints.validating() as beat:
        evaluations = {name: _evaluate(run, name, network, beat) for name, network in run.networks.items()}
    headline = list(evaluations.values())[-1]
    if not math.isfinite(headline.loss):
        raise UserError(f"the loss of the validation at step {run.step} is {headline.loss}. {REMEDY}")
    is_best = headline.top1 > run.checkpoints.best_top1
    run.report.log_validation(run.step, evaluations, is_best=is_best)
    if is_best:
        run.checkpoints.write_best(run, evaluations)
    run.checkpoints.write_last(run, evaluations, owes_validation=False)
    run.accelerator.wait_for_everyone()
    run.report.stopwatch.restart()
    return headline


def _log(run: Run) -> None:
    """Log a row, where the loop waits for the device anyway; first make sure that every step was finite."""
    stop_if_not_finite(run)
    run.report.log(run.step)


def _evaluate(run: Run, name: str, network: nn.Module, beat: Callable[[], None]) -> Evaluation:
    with show_validation(run.accelerator, name, run.val_batches.n) as show:

        def on_batch(sums: Tensor) -> None:
            beat()
            show(sums)

        n, pad_to, network = run.val_batches.n, run.padded_batch, run.for_evaluation(network)
        return evaluate(run.accelerator, network, run.val_batches, expected=n, on_batch=on_batch, pad_to=pad_to)


def _seed_random_numbers(run: Run, micro_batch: int) -> None:
    """Give a forward pass its random numbers (dropout): they depend on its place in the run alone."""
    key = (run.recipe.seed, run.step, micro_batch, run.accelerator.process_index)
    seed_generators(int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0]), run.accelerator.device)


def seed_generators(seed: int, device: torch.device) -> None:
    """Do what `torch.manual_seed` does, for the host and ``device`` alone; to look for others takes 0.1 ms."""
    if device.type not in ("cpu", "cuda"):
        torch.manual_seed(seed)
        return
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.default_generators[torch.cuda.current_device()].manual_seed(seed)


def _update(run: Run) -> None:
    """Move the weights by a gradient that is finite, and forget it."""
    _guard_update(run)
    # accelerate's wrapper looks for packages at each call; only gradient scaling needs it
    optimizer = run.optimizer if run.accelerator.scaler else run.optimizer.optimizer
    optimizer.step()
    run.optimizer.optimizer.zero_grad(set_to_none=not run.keeps_gradients)


def _guard_update(run: Run) -> None:
    """Clip the gradient, and make sure that one which is not finite moves nothing.

    With float16, gradient scaling does the latter: there an overflow is no fault, and the scale gives way.
    """
    norm = measure_gradient(run.accelerator, run.parameters, run.recipe.optim.clip_grad)
    if run.accelerator.scaler is None:
        run.report.norms[run.step + 1] = norm.detach()
        if run.accelerator.device.type == "cuda":
            forbid_update(run.optimizer.optimizer, norm)
        elif not math.isfinite(norm.item()):
            stop_if_not_finite(run)


def stop_if_not_finite(run: Run) -> None:
    """Raise NotFiniteError where a gradient was not finite. The step is not taken; its images are listed in a file."""
    step = run.report.find_bad_step()
    if step is not None:
        names = run.train_batches.names(step - 1 + run.skipped)
        file = write_names(run.checkpoints.folder, step, run.accelerator.process_index, names)
        raise NotFiniteError(
            f"the loss or the gradient of step {step} is not finite: it was not taken, and the weights are those of "
            f"step {step - 1}. The images of this process are listed in {file}. {REMEDY}",
            step,
        )


def _average_batch_norm(run: Run) -> None:
    """Make the running statistics of all ranks their mean: each rank has seen only its own images."""
    if run.accelerator.num_processes > 1:
        for network in run.networks.values():
            distribute_bn(network, run.accelerator.num_processes, reduce=True)
