"""The images of batch normalization as a recipe says: groups, all processes, or the micro-batch."""

import pytest
from timm import create_model
from torch import nn

from backbones.assembly.batch_norm import (
    images_of_batch_norm,
    pending_statistics,
    prepare_batch_norm,
    require_bn_batch,
)
from backbones.errors import UserError
from backbones.layers.batch_norm import GroupedBatchNorm2d, SyncedBatchNorm2d
from backbones.recipe import Optim, Recipe


def recipe(**optim) -> Recipe:
    return Recipe(model="resnet18", batch_size=32, grad_accum_steps=2, optim=Optim(**optim))


@pytest.fixture
def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))


def test_groups_must_divide_a_micro_batch():
    require_bn_batch(recipe(bn_batch=8), processes=2)
    with pytest.raises(UserError, match=r"--bn-batch 16 must divide the 8 images .* 32 / 2 processes / "):
        require_bn_batch(recipe(bn_batch=16), processes=2)


def test_groups_and_synchronization_exclude_each_other():
    with pytest.raises(UserError, match="bn_batch=8 and sync_bn both say what BatchNorm averages over"):
        recipe(bn_batch=8, sync_bn=True)


def test_the_recipe_chooses_the_kind_and_the_momentum(network):
    prepare_batch_norm(network, recipe(bn_momentum=0.2))
    assert (type(network[1]), network[1].momentum) == (nn.BatchNorm2d, 0.2)
    prepare_batch_norm(network, recipe(bn_batch=8))
    assert (type(network[1]), network[1].images) == (GroupedBatchNorm2d, 8)


def test_synchronization_changes_the_kind(network):
    prepare_batch_norm(network, recipe(sync_bn=True))
    assert type(network[1]) is SyncedBatchNorm2d


def test_another_kind_of_batch_normalization_is_refused_with_the_name_of_the_model():
    with pytest.raises(UserError, match=r"--model resnet18: bn_batch cannot change 0, a BatchNorm1d"):
        prepare_batch_norm(nn.Sequential(nn.BatchNorm1d(4)), recipe(bn_batch=8))


def test_the_images_that_batch_normalization_averages_over():
    images = [images_of_batch_norm(recipe(**each), 2) for each in ({}, {"bn_batch": 4}, {"sync_bn": True})]
    assert images == [8, 4, 16]


def test_only_grouped_normalizations_wait_for_the_end_of_a_step():
    model = create_model("test_resnet")
    assert pending_statistics(model)._norms == ()
    prepare_batch_norm(model, recipe(bn_batch=8))
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert list(pending_statistics(model)._norms) == norms
