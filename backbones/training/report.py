"""Reporting of a run: mean losses, speed, progress, counters, and the metrics that other parts contribute."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import mean
from typing import Any, Literal, NamedTuple, cast

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from backbones import terminal
from backbones.errors import UserError
from backbones.training.evaluate import Evaluation
from backbones.training.guard import REMEDY, NotFiniteError
from backbones.training.health.health import Health
from backbones.training.health.monitor import Row
from backbones.training.reading import join_micro_batches, read_device, with_mean
from backbones.training.schedule import Schedule
from backbones.training.stopwatch import Stopwatch
from backbones.training.tracking import Metrics, Tracker


class Moment(NamedTuple):
    """The point of a run at which metrics are asked for."""

    kind: Literal["interval", "validation"]
    """After ``log.interval`` steps, or after a validation."""
    step: int
    epoch: float
    images_seen: int


Contribution = Callable[[Moment], Metrics]
"""A part's own metrics, as ``name -> number or picture``. It is called on every process, at the same moments."""


@dataclass
class Report:
    """Everything that a run says and logs. Each process has one; the first process alone prints and writes."""

    accelerator: Accelerator
    schedule: Schedule
    total_steps: int
    steps_per_epoch: int
    batch_size: int
    """Images per step, over all processes."""
    interval: int
    """Steps between two rows."""
    count: Callable[[], Mapping[str, int]] = dict
    """Returns what this process has counted since it started, such as replaced images."""
    tracker: Tracker | None = None
    """On the first process only."""
    contributions: list[Contribution] = field(default_factory=list)
    """The hook for metrics of any other part."""
    health: Health = field(default_factory=Health)
    """Monitors, which look at each row after the steps of an interval."""
    stopwatch: Stopwatch = field(default_factory=Stopwatch)
    losses: list[Tensor] = field(default_factory=list)
    """Losses since the last row, still on the device."""
    norms: dict[int, Tensor] = field(default_factory=dict)
    """Norm of the gradient of each step since the last row, still on the device."""
    rows: list[tuple[float, int]] = field(default_factory=list)
    """(mean loss, micro-batches) of each row since the last validation."""
    counters: dict[str, int] = field(default_factory=dict)
    """Sums of ``count`` over all processes and since step 0, at the last row or checkpoint."""
    counted_before: dict[str, int] = field(default_factory=dict)
    """The counters of the checkpoint that was resumed."""
    last_step: int = 0
    """Last step that was counted, for the heartbeat."""
    last_loss: float | None = None
    """Mean loss of the last row, for the progress display and the heartbeat."""
    last_speed: dict[str, float] = field(default_factory=lambda: Stopwatch().read())
    """Speed at the last row, likewise."""
    task: terminal.Task | None = None
    """The progress display, on the first process while the run lasts."""

    @property
    def is_live(self) -> bool:
        """True where the progress is a bar on a terminal, which costs no lines."""
        return self.task is not None and self.task.display.is_live

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs to report the same; every process calls this."""
        losses = torch.stack(self.losses).tolist() if self.losses else []
        norms = {step: norm.item() for step, norm in self.norms.items()}
        self._sum_counters()
        return {"losses": gather_object([losses]), "norms": norms, "rows": self.rows, "counters": self.counters}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from the state of a checkpoint; with another number of processes, from their mean losses."""
        device, losses = self.accelerator.device, state["losses"]
        is_same = len(losses) == self.accelerator.num_processes
        own = losses[self.accelerator.process_index] if is_same else [mean(each) for each in zip(*losses, strict=True)]
        self.losses = [torch.tensor(loss, device=device) for loss in own]
        self.norms = {step: torch.tensor(norm, device=device) for step, norm in state["norms"].items()}
        self.rows = [(loss, count) for loss, count in state["rows"]]
        self.counters = self.counted_before = dict(state["counters"])
        self.health.restart()

    def say(self, label: str, text: object) -> None:
        """Print a line above the progress display."""
        if self.accelerator.is_main_process:
            terminal.say(label, text)

    def event(self, step: int, event: str, text: str, **numbers: float) -> None:
        """Print and log something that happened, such as an alarm; ``event`` is its name, ``numbers`` its figures."""
        self.say(event.partition("/")[0], text)
        if self.tracker:
            self.tracker.event(step, event, text, **numbers)

    @contextmanager
    def running(self, step: int) -> Iterator[None]:
        """Show the progress of the run during the block, from ``step`` on."""
        self.stopwatch.restart()
        if not self.accelerator.is_main_process:
            yield
            return
        self.last_step = step
        with (
            terminal.STDOUT.task("starting", self.total_steps, unit="steps", done=step) as self.task,
            self.health.beating(lambda: (self.last_step, self.last_loss)),
        ):
            yield

    def find_bad_step(self) -> int | None:
        """Return the first step since the last row whose gradient was not finite. This waits for the device."""
        if not self.norms:
            return None
        finite = torch.stack(list(self.norms.values())).isfinite().tolist()
        return next((step for step, is_finite in zip(self.norms, finite, strict=True) if not is_finite), None)

    def count_step(self, step: int) -> bool:
        """Note that the optimizer step with this number, from 1, is done, and return whether a row is due."""
        self.stopwatch.images += self.batch_size
        self.last_step = step
        self.show(step)
        return step % self.interval == 0

    def show(self, step: int, *, now: bool = False) -> None:
        """Show the step in the progress display, where it is time to or ``now``."""
        if self.task and (now or self.task.is_due):
            epoch = (step - 1) // self.steps_per_epoch + 1
            self.task.update(step, self._figures(step), what=f"epoch {epoch}", now=now)

    def log(self, step: int) -> None:
        """Log the mean loss since the last row, and raise alarms. This waits for the device.

        Raises:
            NotFiniteError: the loss is not finite.
            UserError: a monitor ends the run.
        """
        if not self.losses:
            return
        losses, norms, watched = self._read(step)
        loss = losses[0]
        if not math.isfinite(loss):
            raise NotFiniteError(f"the training loss is {loss} at step {step}. {REMEDY}", step)
        self._sum_counters()
        moment, speed = self._moment("interval", step), self.stopwatch.read()
        gradient = {"train/grad_norm": norms[0]} if norms else {}  # none under gradient scaling
        self._log(moment, {"train/loss": loss, "train/lr": self.schedule(step), **gradient, **self.counters, **speed})
        self.rows.append((loss, len(self.losses)))
        self.last_loss, self.last_speed = loss, speed
        row = self._row(step, losses[1:], norms[1:])
        self.losses.clear()
        self.norms.clear()
        self._raise_alarms(row, watched)
        self.stopwatch.restart()

    def log_validation(self, step: int, evaluations: dict[str, Evaluation], *, is_best: bool) -> None:
        """Print and log the figures of a validation; ``evaluations`` are by name, such as ``val_ema``."""
        moment = self._moment("validation", step)
        for name, evaluation in evaluations.items():
            if self.accelerator.is_main_process:
                best = "  best" if is_best else ""
                terminal.write(f"epoch {math.ceil(moment.epoch):3d}  {name:7s}  {evaluation}{best}")
        metrics = {key: value for name, each in evaluations.items() for key, value in each.metrics(name).items()}
        self._log(moment, metrics)
        if self.tracker:
            train = {"train/loss": self._mean_of_rows(), "train/lr": self.schedule(step)}
            self.tracker.summarize(step, {**_position(moment), **train, **metrics})
        self.rows.clear()

    def _log(self, moment: Moment, metrics: Metrics) -> None:
        row = {**_position(moment), **metrics}
        for contribution in self.contributions:
            contributed = contribution(moment)
            if taken := sorted(row.keys() & contributed.keys()):
                raise ValueError(f"a contribution has a metric that exists already: {', '.join(taken)}")
            row |= contributed
        if self.tracker:
            self.tracker.log(moment.step, row, kind="validation" if moment.kind == "validation" else "")

    def _moment(self, kind: Literal["interval", "validation"], step: int) -> Moment:
        return Moment(kind, step, step / self.steps_per_epoch, step * self.batch_size)

    def _read(self, step: int) -> tuple[list[float], list[float], list[list[float]]]:
        """Return losses of all processes, norms (each with their mean in front), and what the monitors watch."""
        sums = cast(Tensor, self.accelerator.reduce(with_mean(self.losses), reduction="sum"))
        losses, norms, *watched = read_device([sums, with_mean(self.norms.values()), *self.health.collect(step)])
        return [loss / self.accelerator.num_processes for loss in losses], norms, watched

    def _row(self, step: int, losses: Sequence[float], norms: Sequence[float]) -> Row:
        """Return what monitors get to see of the steps since the last row."""
        return Row(
            step,
            join_micro_batches(losses, self.accelerator.gradient_accumulation_steps),
            dict(zip(self.norms, norms, strict=True)),
            self.last_speed["perf/images_per_second"],
            self.stopwatch.elapsed,
            self.stopwatch.waited,
        )

    def _raise_alarms(self, row: Row, watched: Sequence[Sequence[float]]) -> None:
        for alarm in self.health.judge(row, watched):
            self.event(row.step, f"alarm/{alarm.alarm}", alarm.text, **alarm.numbers)
            if alarm.stops:
                raise UserError(alarm.text)

    def _sum_counters(self) -> None:
        counts = self.count()
        if counts:
            here = torch.tensor(list(counts.values()), device=self.accelerator.device)
            sums = cast(Tensor, self.accelerator.reduce(here, reduction="sum")).tolist()
            before = self.counted_before
            self.counters = {name: before.get(name, 0) + n for name, n in zip(counts, sums, strict=True)}

    def _mean_of_rows(self) -> float:
        """Return the mean training loss since the last validation."""
        return sum(loss * count for loss, count in self.rows) / max(1, sum(count for _, count in self.rows))

    def _figures(self, step: int) -> list[str]:
        """Return the figures for the progress display. Before the first row this waits for the device."""
        loss = self.last_loss
        if loss is None:
            loss = torch.stack(self.losses).mean().item() if self.losses else math.nan
        speed = self.stopwatch.read() if self.stopwatch.images else self.last_speed
        return [
            f"loss {loss:.3f}",
            f"lr {self.schedule(step):.3g}",
            f"{speed['perf/images_per_second']:.0f} images/s",
            f"data wait {speed['perf/data_wait']:.0%}",
        ]


@contextmanager
def show_validation(accelerator: Accelerator, name: str, size: int) -> Iterator[Callable[[Tensor], None]]:
    """Show the progress of a validation of ``size`` images; yield the function that `evaluate` calls.

    The figures are those of the first process so far; the others are taken to have as many images.
    """
    if not accelerator.is_main_process:
        yield lambda _sums: None
        return
    with terminal.STDOUT.task(name, size, unit="images") as task:

        def show(sums: Tensor) -> None:
            if task.is_due:
                top1, _, _, n = sums.tolist()
                task.update(
                    min(size, round(n) * accelerator.num_processes), [f"top-1 {100 * top1 / max(n, 1):.2f} % so far"]
                )

        yield show


def _position(moment: Moment) -> dict[str, float]:
    return {"epoch": moment.epoch, "images_seen": moment.images_seen}
