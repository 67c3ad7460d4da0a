"""The parts are put together as the recipe says."""

from contextlib import closing
from dataclasses import replace

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from backbones.assembly.run import build_model, build_run, follow_progress, make_ema, splits, train_loader, val_loader
from backbones.errors import UserError
from backbones.layers import DropBlock2d
from backbones.recipe import Ema, Optim, Recipe, Synthetic
from backbones.training.compilation import compile_validation
from backbones.training.loop import NoCheckpoints, train_epoch, validate_and_save

pytestmark = pytest.mark.usefixtures("fresh_accelerate")
RECIPE = Recipe(
    model="test_resnet",
    img_size=32,
    batch_size=8,
    loader="synthetic",
    epochs=3,
    device="cpu",
    synthetic=Synthetic(classes=3, train_per_class=9, val_per_class=4),
)


def assembled(recipe: Recipe):
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=recipe.grad_accum_steps)
    train, val = splits(recipe)
    loaders = train_loader(recipe, train, accelerator), val_loader(recipe, val, accelerator)
    model = build_model(recipe, len(train.classes))
    return build_run(recipe, accelerator, model, loaders, checkpoints=NoCheckpoints())


def test_the_network_starts_from_the_seed_alone():
    torch.manual_seed(99)
    first = build_model(RECIPE, 3).state_dict()
    torch.manual_seed(98)
    second = build_model(RECIPE, 3).state_dict()
    other = build_model(replace(RECIPE, seed=1), 3).state_dict()
    assert all(torch.equal(value, second[key]) for key, value in first.items())
    assert not all(torch.equal(value, other[key]) for key, value in first.items())


def test_batch_norm_gets_the_recipes_momentum():
    model = build_model(replace(RECIPE, optim=Optim(bn_momentum=0.07)), 3)
    assert {module.momentum for module in model.modules() if isinstance(module, nn.BatchNorm2d)} == {0.07}


@pytest.mark.parametrize("channels_last", [True, False])
def test_memory_order_is_the_recipes(channels_last):
    model = build_model(replace(RECIPE, channels_last=channels_last), 3)
    weight = next(p for p in model.parameters() if p.ndim == 4 and p.shape[2] > 1)
    assert weight.is_contiguous(memory_format=torch.channels_last) is channels_last


def test_the_run_is_as_long_and_as_fast_as_the_recipe_says():
    run = assembled(replace(RECIPE, lr=0.2, optim=Optim(burn_in=0, power=1)))
    assert (run.total_steps, run.train_batches.steps_per_epoch, run.val_batches.n) == (9, 3, 12)
    assert run.schedule(3) == pytest.approx(0.2 * 6 / 9)


def test_the_mixer_knows_the_classes():
    run = assembled(RECIPE)
    images, targets = run.mix(next(run.train_batches.from_step(0)))
    assert images.shape == (8, 3, 32, 32)
    assert targets.shape == (8, 3)


def test_the_average_is_made_only_when_asked_for():
    model = build_model(RECIPE, 3)
    assert make_ema(RECIPE, model) is None
    average = make_ema(replace(RECIPE, model_ema=True, ema=Ema(decay=0.5, warmup=False)), model)
    assert average is not None
    assert average.decay == 0.5


def test_every_drop_block_follows_the_progress_and_is_looked_for_once(monkeypatch):
    model = nn.Sequential(DropBlock2d(), nn.Sequential(nn.ReLU(), DropBlock2d(kind="paper")))
    follow = follow_progress(model)
    monkeypatch.setattr(nn.Module, "named_modules", None)
    for share in (0.0, 0.1, 1 / 3):
        follow(share)
        expected = torch.ones(()).fill_(share)
        assert all(torch.equal(module.progress, expected) for module in (model[0], model[1][1]))


def test_a_network_without_drop_block_has_no_progress_to_follow():
    follow_progress(nn.ReLU())(0.5)


def test_validation_batches_are_as_large_as_training_batches():
    accelerator = Accelerator(cpu=True)
    _, val = splits(RECIPE)
    assert len(val_loader(replace(RECIPE, grad_accum_steps=2), val, accelerator)) == 3


def test_a_compiled_run_has_one_graph_for_training_and_one_for_evaluation(graphs):
    """Nothing is compiled again: not as rate, epoch and average move, and not for the last, smaller batch."""
    recipe = replace(RECIPE, batch_size=6, grad_accum_steps=2, epochs=2, torchcompile=True, model_ema=True)
    run = assembled(replace(recipe, synthetic=Synthetic(classes=2, train_per_class=9, val_per_class=2)))
    compile_validation(run)
    counted = [graphs()]
    with closing(run.train_batches.from_step(0)) as batches:
        while run.step < run.total_steps:
            train_epoch(run, batches)
            validate_and_save(run)
            counted.append(graphs())
    assert (run.total_steps, run.val_batches.batch_size, run.val_batches.n) == (6, 3, 4)
    assert counted == [1, 2, 2]


def test_the_average_is_compiled_too(graphs):
    run = assembled(replace(RECIPE, torchcompile=True, model_ema=True))
    assert run.ema is not None
    run.ema.module(torch.rand(2, 3, 32, 32))
    assert graphs() == 1


def test_a_data_folder_is_needed_unless_images_are_made_up():
    with pytest.raises(UserError, match="--data-dir is missing"):
        splits(replace(RECIPE, loader="dali"))
