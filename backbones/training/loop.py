"""The training loop: `fit` and `train_epoch`."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Protocol, cast

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from timm.utils.distributed import distribute_bn
from timm.utils.model_ema import ModelEmaV3
from torch import Tensor, nn

from backbones.errors import UserError
from backbones.training.evaluate import Evaluation, evaluate
from backbones.training.progress import ProgressBar, Stopwatch
from backbones.training.schedule import Schedule, set_lr
from backbones.training.tracking import Tracker


class TrainBatches(Protocol):
    """What the loop asks of a loader: the micro-batches of an epoch, from any step of it on."""

    steps_per_epoch: int

    @property
    def replaced(self) -> int:
        """Bad images of this process in whose place others were taken, so far."""
        ...

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[Any]:
        """Yield this process's micro-batches of an epoch, from its ``start_step``-th optimizer step on."""
        ...


@dataclass
class Run:
    """All that `fit` moves, made once per process. Everything that a resume needs is keyed by ``step``."""

    accelerator: Accelerator
    model: nn.Module
    optimizer: AcceleratedOptimizer
    schedule: Schedule
    total_steps: int
    batch_size: int
    train_batches: TrainBatches
    val_batches: Iterable[Any]
    val_size: int
    mix: Callable[[Any], tuple[Tensor, Tensor]]
    """Batch -> images (N, 3, H, W), soft targets (N, K)."""
    save: Callable[["Run", dict[str, Evaluation], bool], None]
    """(run, evaluations by name, whether it is the best so far); called on rank 0 after each validation."""
    progress: ProgressBar
    on_step: Callable[[float], None] = lambda _share: None
    """Called before each step with the share of the run that is done, from 0 up to 1 (DropBlock's strength)."""
    tracker: Tracker | None = None
    """On rank 0 only."""
    ema: ModelEmaV3 | None = None
    clip_grad: float | None = None
    seed: int = 0
    log_interval: int = 50
    val_interval: int = 1
    step: int = 0
    """Optimizer steps made."""
    best_top1: float = -math.inf
    """Highest top-1 so far, in per cent."""
    owes_validation: bool = False
    """The checkpoint that the run goes on from was written, but its validation did not come to an end."""
    replaced: int = 0
    """Bad images in whose place others were taken, over all processes and since step 0, at the last report."""
    replaced_before: int = 0
    """Those of them that the checkpoint counted which this run goes on from."""
    reported: list[tuple[float, int]] = field(default_factory=list)
    """(mean loss, micro-batches) of each report since the last validation."""
    stopwatch: Stopwatch = field(default_factory=Stopwatch)
    losses: list[Tensor] = field(default_factory=list)
    """Losses since the last report, still on the device."""

    @property
    def epoch(self) -> int:
        """Epoch that the next step belongs to, from 0."""
        return self.step // self.train_batches.steps_per_epoch

    @property
    def plain_model(self) -> nn.Module:
        """The network without the wrappers of DDP and torch.compile."""
        return self.accelerator.unwrap_model(self.model, keep_torch_compile=False)


def fit(run: Run) -> Evaluation:
    """Train until ``total_steps`` and return the figures of the last validation (of the EMA, where there is one)."""
    require_work_left(run)
    run.stopwatch.restart()
    run.progress.begin(run.step)
    evaluation = validate_and_save(run) if run.owes_validation else None
    while run.step < run.total_steps:
        train_epoch(run)
        if run.step >= run.total_steps or run.epoch % run.val_interval == 0:
            evaluation = validate_and_save(run)
    run.progress.close()
    assert evaluation is not None
    return evaluation


def require_work_left(run: Run) -> None:
    """Refuse to go on with a run that is over."""
    if run.step >= run.total_steps and not run.owes_validation:
        raise UserError(f"the run already has all its {run.total_steps} steps: raise --epochs or --steps to go on.")


def train_epoch(run: Run) -> None:
    """Make the optimizer steps that are left of the current epoch."""
    run.model.train()
    for number, batch in enumerate(run.stopwatch.waiting_for(_batches_left(run))):
        with run.accelerator.accumulate(run.model):
            _set_up_step(run, micro_batch=number % run.accelerator.gradient_accumulation_steps)
            images, targets = run.mix(batch)
            loss = F.cross_entropy(run.model(images), targets)
            run.accelerator.backward(loss)
            _clip_gradients(run)
            run.optimizer.step()
            run.optimizer.zero_grad()
        run.losses.append(loss.detach())
        if run.accelerator.sync_gradients:
            _count_step(run)
    _report(run)


def validate_and_save(run: Run) -> Evaluation:
    """Evaluate the network (and its average), log the figures, and save ``last`` and perhaps ``best``.

    ``last`` is written before, too: what was trained is safe when the evaluation fails.
    """
    _average_batch_norm(run)
    if run.accelerator.is_main_process:
        run.save(run, {}, False)
    networks = {"val": run.plain_model} | ({"val_ema": run.ema.module} if run.ema else {})
    evaluations = {
        name: evaluate(run.accelerator, network, run.val_batches, expected=run.val_size)
        for name, network in networks.items()
    }
    headline = list(evaluations.values())[-1]
    is_best = headline.top1 > run.best_top1
    run.best_top1 = max(run.best_top1, headline.top1)
    if run.accelerator.is_main_process:
        _announce(run, evaluations, is_best=is_best)
        run.save(run, evaluations, is_best)
    run.accelerator.wait_for_everyone()
    run.owes_validation = False
    run.reported.clear()
    run.stopwatch.restart()
    return headline


def _batches_left(run: Run) -> Iterator[Any]:
    """Yield the micro-batches from the current step to the end of the epoch or of the run."""
    epoch, done = divmod(run.step, run.train_batches.steps_per_epoch)
    micro_batches = (run.total_steps - run.step) * run.accelerator.gradient_accumulation_steps
    return islice(run.train_batches.epoch(epoch, done), micro_batches)


def _set_up_step(run: Run, *, micro_batch: int) -> None:
    """Give the step its learning rate, progress and random numbers (dropout): all depend on its number alone."""
    set_lr(run.optimizer.optimizer, run.schedule(run.step + 1))
    run.on_step(run.step / run.total_steps)
    key = (run.seed, run.step, micro_batch, run.accelerator.process_index)
    torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0]))


def _clip_gradients(run: Run) -> None:
    if run.clip_grad and run.accelerator.sync_gradients:
        run.accelerator.clip_grad_norm_(run.model.parameters(), run.clip_grad)


def _count_step(run: Run) -> None:
    run.step += 1
    run.stopwatch.images += run.batch_size
    if run.ema:
        run.ema.update(run.plain_model, step=run.step)
    run.progress.update(run.step, (run.step - 1) // run.train_batches.steps_per_epoch, run.stopwatch.read())
    if run.step % run.log_interval == 0:
        _report(run)


def _report(run: Run) -> None:
    """Log the mean loss since the last report; the one place where the loop waits for the device."""
    if not run.losses:
        return
    mean = torch.stack(run.losses).mean()
    counted = torch.stack([mean, mean.new_tensor(run.train_batches.replaced)])
    total, replaced = cast(Tensor, run.accelerator.reduce(counted, reduction="sum")).tolist()
    loss, run.replaced = total / run.accelerator.num_processes, run.replaced_before + int(replaced)
    if not math.isfinite(loss):
        raise UserError(
            f"the training loss is {loss} at step {run.step}; nothing was saved since the last validation. "
            "Lower --lr, lengthen --burn-in, or set --clip-grad."
        )
    if run.tracker:
        train = {"train/loss": loss, "train/lr": run.schedule(run.step), "data/replaced": run.replaced}
        run.tracker.log(run.step, {**_position(run), **train, **run.stopwatch.read()})
    run.reported.append((loss, len(run.losses)))
    run.losses.clear()
    run.stopwatch.restart()


def _mean_loss(run: Run) -> float:
    """Return the mean training loss since the last validation."""
    return sum(loss * count for loss, count in run.reported) / sum(count for _, count in run.reported)


def _position(run: Run) -> dict[str, float]:
    return {"epoch": run.step / run.train_batches.steps_per_epoch, "images_seen": run.step * run.batch_size}


def _average_batch_norm(run: Run) -> None:
    """Make the running statistics of all ranks their mean: each rank has seen only its own images."""
    if run.accelerator.num_processes > 1:
        networks = [run.plain_model] + ([run.ema.module] if run.ema else [])
        for network in networks:
            distribute_bn(network, run.accelerator.num_processes, reduce=True)


def _announce(run: Run, evaluations: dict[str, Evaluation], *, is_best: bool) -> None:
    epoch = math.ceil(_position(run)["epoch"])
    for name, evaluation in evaluations.items():
        run.progress.print(f"epoch {epoch:3d}  {name:7s}  {evaluation}{'  best' if is_best else ''}")
    if run.tracker:
        metrics = {key: value for name, e in evaluations.items() for key, value in e.metrics(name).items()}
        run.tracker.log(run.step, {**_position(run), **metrics})
        train = {"train/loss": _mean_loss(run), "train/lr": run.schedule(run.step)}
        run.tracker.summarize(run.step, {**_position(run), **train, **metrics})
