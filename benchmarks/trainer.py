"""The real trainer as an action to measure: `train_step` of a run with mixing, average, log and checkpoints."""

import argparse
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate.state import AcceleratorState, GradientState
from torch import Tensor

from backbones.assembly.run import build_model, build_run, create_snapshots, splits, train_loader, val_loader
from backbones.data.batch import Batch
from backbones.recipe import Log, Recipe
from backbones.training.control import Control
from backbones.training.launch import create_accelerator
from backbones.training.loop import NoCheckpoints, Run, train_step
from backbones.training.tracking import Tracker
from benchmarks.networks import Setting, make_batch, to_floats


def synthetic_recipe(options: argparse.Namespace, **changes: Any) -> Recipe:
    """Return the recipe of a long run on random images; ``options`` has model, size, batch_size and turn."""
    return Recipe(
        model=options.model,
        img_size=options.size,
        batch_size=options.batch_size,
        lr=0.001,
        steps=100_000,
        loader="synthetic",
        log=Log(interval=options.turn),
        **changes,
    )


def build(recipe: Recipe, folder: Path, *, saves: bool = False) -> Run:
    """Return the run of a recipe that logs to ``folder``, in training mode, with checkpoints if it ``saves``."""
    folder.mkdir(parents=True, exist_ok=True)
    AcceleratorState._reset_state(reset_partial_state=True)  # of the run before, perhaps in another precision
    GradientState._reset_state()
    accelerator = create_accelerator(precision=recipe.precision, device=recipe.device)
    train, val = splits(recipe)
    loaders = train_loader(recipe, train, accelerator), val_loader(recipe, val, accelerator)
    model = build_model(recipe, len(train.classes))
    checkpoints = NoCheckpoints()
    if saves:
        control = Control(accelerator, recipe.saving, recipe.waiting, run=str(folder))
        checkpoints = create_snapshots(recipe, folder, model, train, val, control)
    tracker = Tracker(folder, recipe)
    run = build_run(recipe, accelerator, model, loaders, checkpoints=checkpoints, tracker=tracker)
    run.model.train()
    return run


BATCHES_AHEAD = 2
"""Batches that a loader has ready in advance, as in the default recipe."""


class Trainer:
    """Trainer that makes one step for each call, on batches that cost nothing to make.

    Args:
        run: made by `build`.
        seconds: time between two arrivals of batches; 0: each is there at once.
    """

    def __init__(self, run: Run, *, seconds: float = 0.0) -> None:
        self.run = run
        self.batches = Throttle(_batches(run), seconds) if seconds else _batches(run)

    def __call__(self) -> None:
        train_step(self.run, self.batches)


def _batches(run: Run) -> Iterator[Batch]:
    recipe = run.recipe
    setting = Setting(recipe.batch_size, recipe.img_size, str(run.accelerator.device))
    images, labels = fixed_images(setting)
    labels = labels % recipe.synthetic.classes
    position = 0
    while True:
        yield Batch(images, labels, 0, position)  # mixing overwrites the images, which are noise anyway
        position += len(labels)


def fixed_images(setting: Setting) -> tuple[Tensor, Tensor]:
    """Return float images in channels_last order, and labels. Shape: (N, 3, H, W), (N,)."""
    pixels, labels = make_batch(setting)
    return to_floats(pixels).contiguous(memory_format=torch.channels_last), labels


class Throttle:
    """Iterator whose items arrive at a fixed rate, a few in advance, as from a loader with a bounded queue."""

    def __init__(self, items: Iterator[Batch], seconds: float, *, ahead: int = BATCHES_AHEAD) -> None:
        self.items, self.seconds = items, seconds
        self.ready = time.perf_counter()
        self.taken = [self.ready] * ahead
        """Times at which the last items were taken: each makes room for one more."""

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        self.ready = max(self.ready, self.taken.pop(0)) + self.seconds
        time.sleep(max(0.0, self.ready - time.perf_counter()))
        self.taken.append(time.perf_counter())
        return next(self.items)


def without_monitors(recipe: Recipe) -> Recipe:
    """Return the recipe of the same run without monitors."""
    return replace(recipe, health=replace(recipe.health, monitors=False))
