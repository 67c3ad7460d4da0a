"""Tests of the measurements: each stage's own work, on images that were not read before, without learning."""

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from backbones.assembly.run import build_model, build_run, splits, train_loader, val_loader
from backbones.commands.doctor import measure
from backbones.data.reading.reader import Reader
from backbones.recipe import Recipe, Synthetic
from backbones.training.launch import create_accelerator
from backbones.training.loop import NoCheckpoints

pytestmark = pytest.mark.usefixtures("fresh_accelerate")

SECONDS = 0.15
SLOW = 0.04
"""Seconds that a slowed loss or batch takes: many times the time of 8 images of 32 pixels."""

SMALL = Recipe(model="test_resnet", img_size=32, batch_size=2, loader="reference", epochs=1, device="cpu")


@pytest.fixture
def slow_loss(monkeypatch):
    loss = F.cross_entropy
    monkeypatch.setattr(F, "cross_entropy", lambda *inputs, **options: time.sleep(SLOW) or loss(*inputs, **options))


def run_of(recipe: Recipe):
    accelerator = create_accelerator(device="cpu", grad_accum_steps=recipe.grad_accum_steps)
    train, val = splits(recipe)
    batches = train_loader(recipe, train, accelerator), val_loader(recipe, val, accelerator)
    return build_run(recipe, accelerator, build_model(recipe, len(train.classes)), batches, checkpoints=NoCheckpoints())


def slowly(batches: Iterator[Any]) -> Iterator[Any]:
    for batch in batches:
        time.sleep(SLOW)
        yield batch


def test_no_image_is_read_twice_while_there_are_others(image_folder, monkeypatch):
    rows: list[int] = []
    read = Reader.read
    monkeypatch.setattr(Reader, "read", lambda self, plan: rows.extend(plan.rows.tolist()) or read(self, plan))
    run = run_of(replace(SMALL, data_dir=str(image_folder)))
    measured = measure.measure(run, replace(SMALL, data_dir=str(image_folder)), seconds=0, tell=lambda _: None)
    assert len(rows) == len(set(rows)) == 2 * measured.steps == 5 * 2 * measure.MIN_STEPS * 2


def test_measuring_goes_on_beyond_the_end_of_a_small_data_set(image_folder):
    recipe = replace(SMALL, data_dir=str(image_folder), batch_size=64, grad_accum_steps=4)
    measured = measure.measure(run_of(recipe), recipe, seconds=0, tell=lambda _: None)
    assert measured.steps == 5 * 2 * measure.MIN_STEPS  # of one step in each epoch
    assert measured.stages["read"].images == measured.joint.images == measure.MIN_STEPS * 64


@pytest.mark.usefixtures("slow_loss")
def test_a_measurement_ends_with_a_whole_step(monkeypatch):
    monkeypatch.setattr(measure, "MIN_STEPS", 0)
    recipe = replace(SMALL, loader="synthetic", synthetic=Synthetic(3, 9, 4), batch_size=8, grad_accum_steps=4)
    run = measure._silence(run_of(recipe))
    rate = measure.train_rate(run, run.train_batches.from_step(0), seconds=SLOW / 2)
    assert rate.images == 8


def test_nothing_is_learned_while_measuring():
    recipe = replace(SMALL, loader="synthetic", synthetic=Synthetic(3, 9, 4))
    run = run_of(recipe)
    before = [parameter.detach().clone() for parameter in run.model.parameters()]
    measure.measure(run, recipe, seconds=0, tell=lambda _: None)
    assert all(torch.equal(old, new) for old, new in zip(before, run.model.parameters(), strict=True))


@pytest.mark.usefixtures("slow_loss")
def test_waiting_is_what_the_batches_take_and_not_what_the_step_takes():
    run = measure._silence(run_of(replace(SMALL, loader="synthetic", synthetic=Synthetic(3, 9, 4))))
    rate = measure.train_rate(run, slowly(run.train_batches.from_step(0)), seconds=SECONDS)
    batches = rate.images // 2
    assert batches * SLOW <= rate.waited <= rate.seconds - batches * SLOW
