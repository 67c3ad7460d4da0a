"""Run under accelerate launch by test_two_processes.py: what each rank saw, and the weights it ended with.

Arguments: data folder, output folder. Each rank writes rank<R>.pt.
"""

import os
import signal
import sys
import time
from contextlib import closing, suppress
from itertools import islice
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from torch import nn
from torch.utils.checkpoint import checkpoint

from backbones.assembly.run import create_report, splits, train_loader, val_loader
from backbones.data.mixing import Mixer
from backbones.errors import UserError
from backbones.recipe import Log, Optim, Recipe, Saving
from backbones.training.control import Control, Decision
from backbones.training.health.batch_norm import BatchNormStatistics
from backbones.training.health.health import Health
from backbones.training.health.monitor import Every
from backbones.training.health.replicas import Replicas
from backbones.training.health.stragglers import Stragglers
from backbones.training.launch import create_accelerator
from backbones.training.loop import NoCheckpoints, Run, fit, train_step
from backbones.training.optim import create_optimizer

RECIPE = Recipe(batch_size=32, img_size=24, workers=1, steps=4, device="cpu")


def seen(batches) -> list[tuple[int, int, int, torch.Tensor]]:
    """(epoch, position of the image, label, pixels) of every image in the batches."""
    return [
        (batch.epoch, batch.position + i, int(batch.labels[i]), batch.images[i].clone())
        for batch in batches
        for i in range(len(batch.labels))
    ]


def network(*, norm: bool) -> nn.Module:
    torch.manual_seed(0)
    middle = nn.BatchNorm2d(5) if norm else nn.Identity()
    return nn.Sequential(nn.Conv2d(3, 5, 3, stride=4), middle, nn.ReLU(), nn.Flatten(), nn.Linear(180, 4))


def rate(_step: int) -> float:
    return 0.05


def make_run(data: str, model: nn.Module, *, static_graph: bool = False, **fields) -> Run:
    """Return a run of this rank with mixing on; ``fields`` are those of the recipe."""
    recipe = Recipe(**{**vars(RECIPE), "data_dir": data, **fields})
    accelerator = create_accelerator(
        device="cpu", static_graph=static_graph, grad_accum_steps=recipe.grad_accum_steps, timeout=60
    )
    train, val = splits(recipe)
    prepared, optimizer = accelerator.prepare(model, create_optimizer(model, Optim(), lr=0.1))
    assert isinstance(optimizer, AcceleratedOptimizer)
    batches = train_loader(recipe, train, accelerator)
    assert recipe.steps is not None
    return Run(
        accelerator=accelerator,
        model=prepared,
        optimizer=optimizer,
        schedule=rate,
        recipe=recipe,
        total_steps=recipe.steps,
        train_batches=batches,
        val_batches=val_loader(recipe, val, accelerator),
        mix=Mixer(recipe.mixing, classes=4, seed=recipe.seed, batch_size=recipe.batch_size),
        checkpoints=NoCheckpoints(),
        report=create_report(recipe, accelerator, batches, rate, total_steps=recipe.steps, tracker=None),
    )


def trained(data: str, *, norm: bool) -> tuple[dict[str, torch.Tensor], float]:
    """Return the weights after two epochs, and the top-1 of the last validation."""
    run = make_run(data, network(norm=norm))
    evaluation = fit(run)
    return {key: value.clone() for key, value in run.plain_model.state_dict().items()}, evaluation.top1


class Checkpointed(nn.Module):
    """A network that computes its middle again in the backward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.first, *middle, self.flatten, self.last = network(norm=True)
        self.middle = nn.Sequential(*middle)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = checkpoint(self.middle, self.first(x), use_reentrant=False)
        return self.last(self.flatten(x))


def losses(data: str, *, static_graph: bool) -> list[torch.Tensor]:
    """Return the losses of this rank in each step, with or without a static graph, and the last weights."""
    torch.manual_seed(0)
    run = make_run(data, Checkpointed(), static_graph=static_graph, steps=6, log=Log(interval=100))
    assert getattr(run.model, "static_graph", static_graph) is static_graph
    with closing(run.train_batches.from_step(0)) as batches:
        run.model.train()
        for _ in range(6):
            train_step(run, batches)
    return [*run.report.losses, *run.plain_model.parameters()]


class Slow(nn.Module):
    """The identity, which takes its time."""

    seconds = 0.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        time.sleep(self.seconds)
        return x


def watched(data: str, *, broken: bool) -> list[tuple[int, str, str]]:
    """Return the alarms (step, name, text) of this rank in a run of 12 steps, watched at every second one.

    If ``broken``, the last of several ranks is slow, its images are bright, and one bit of its weights turns in step 9.
    """
    slow = Slow()
    run = make_run(data, nn.Sequential(slow, network(norm=True)), steps=12, val_interval=100, log=Log(interval=1))
    norms, replicas = (
        BatchNormStatistics(run.plain_model, run.accelerator),
        Replicas(run.plain_model, run.accelerator, 2),
    )
    stragglers = Stragglers(run.model, run.accelerator)
    norms.every, stragglers.every = Every(2), Every(2)
    replicas = Replicas(run.plain_model, run.accelerator, 2)
    run.report.health = Health([norms, replicas, *([stragglers] if broken else [])])
    alarms: list[tuple[int, str, str]] = []
    run.report.event = lambda step, event, text, **_: alarms.append((step, event, text))  # type: ignore[method-assign]
    if broken and run.accelerator.process_index > 0:
        slow.seconds = 0.05
        plain, mix = run.plain_model, run.mix
        run.mix = lambda batch: (100 * (mixed := mix(batch))[0], mixed[1])
        run.on_step = lambda share: turn_bit(plain) if share == 8 / 12 else None
    with suppress(UserError):
        fit(run)
    return alarms


def turn_bit(model: nn.Module) -> None:
    """Turn the lowest bit of one weight."""
    model.get_parameter("1.4.weight").data.view(-1)[:1].view(torch.int32).bitwise_xor_(1)


def decisions(accelerator: Accelerator) -> list[Decision]:
    """Return what this rank does after step 1, and after step 2, before which the last rank alone got a signal."""
    control = Control(accelerator, Saving(ckpt_minutes=None))
    with control.listening():
        before = control.decide(1)
        if accelerator.is_last_process:
            os.kill(os.getpid(), signal.SIGTERM)
        return [before, control.decide(2)]


def report(data: str) -> dict:
    """Return what this rank saw in an epoch and in validation, and what it trained."""
    recipe = Recipe(**{**vars(RECIPE), "data_dir": data})
    accelerator = create_accelerator(device="cpu")
    train, val = splits(recipe)
    batches = train_loader(recipe, train, accelerator)
    with closing(batches.from_step(3 * batches.steps_per_epoch)) as stream:
        training = seen(islice(stream, batches.steps_per_epoch))
    validation = seen(val_loader(recipe, val, accelerator))
    return {
        "rank": accelerator.process_index,
        "ranks": accelerator.num_processes,
        "training": training,
        "validation": validation,
        "plain": trained(data, norm=False),
        "norm": trained(data, norm=True),
        "losses": {static: losses(data, static_graph=static) for static in (False, True)},
        "healthy": watched(data, broken=False),
        "broken": watched(data, broken=True),
        "decisions": [tuple(decision) for decision in decisions(accelerator)],
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    result = report(sys.argv[1])
    torch.save(result, Path(sys.argv[2]) / f"rank{result['rank']}.pt")
